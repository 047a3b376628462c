"""What the gate measures of a release: its ranking, as the tracker would serve it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from models.fakes import HashEmbedder
from models.settings import Settings
from tests.trainer.corpora import bought, corpus_of, items
from trainer.cases import cases, prompted
from trainer.evaluation.context import Context
from trainer.judging import Answer, checked
from trainer.measuring import Contender, measure

POPULARITY_ALONE = {"profile": 0.0, "recent": 0.0, "cooccurrence": 0.0, "popularity": 1.0}


def silent(prompts: Sequence[str]) -> list[Answer]:
    return [Answer("", 0, finished=True) for _ in prompts]


@pytest.fixture
def settings(make_settings) -> Settings:
    return make_settings(
        ranking=POPULARITY_ALONE,
        train={"sessions": {"min_history": 2, "test": 0.02, "validation": 0.02}},
    )


def events(dislike: str | None):
    """Everybody buys the hit, most the runner-up; in the end ann buys the runner-up too."""
    crowd = [bought(f"u{n}", "hit", n) for n in range(20)]
    crowd += [bought(f"u{n}", "runner-up", n + 0.5) for n in range(10)]
    ann = [bought("ann", "tea", 1), bought("ann", "cup", 2)]
    if dislike:
        ann.append(bought("ann", "hit", 3, name="dislike", type=dislike, rating=1.0))
    return [*crowd, *ann, bought("ann", "runner-up", 40)]


@pytest.mark.parametrize(
    ("dislike", "ndcg"),
    [(None, 0.6309), ("hide", 1.0), ("rating", 1.0), ("cancel", 1.0)],
)
def test_what_the_tracker_would_leave_out_takes_no_place(
    settings: Settings, tmp_path, dislike: str | None, ndcg: float
) -> None:
    """The hit ranks first and the runner-up second, unless ann does not want the hit."""
    corpus = corpus_of(events(dislike), items("cup", "hit", "runner-up", "tea"), settings)
    found = cases(corpus.sessions.test, corpus.row_of, corpus.spec, mask_seen=True)
    asked = [prompted(one, corpus.spec, corpus.text_of) for one in found]
    context = Context(corpus, settings, HashEmbedder, "hash", tmp_path)
    measured = measure(
        Contender("new", silent, context), found, asked, checked(lambda text: len(text)), settings
    )

    assert [one.session.user_id for one in found] == ["ann"]
    assert measured.ranking.tolist() == pytest.approx([ndcg], abs=1e-4)
