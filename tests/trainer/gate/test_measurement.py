"""What the gate measures of a release: its ranking, as the tracker would serve it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.fakes import HashEmbedder
from models.ports import Vectors
from models.schemas import Item
from models.settings import Settings
from tests.trainer.corpora import bought, corpus_of, items
from trainer.data.cases import cases, prompted
from trainer.evaluation.context import Context
from trainer.gate.decision import Check, Measured, Window, judge
from trainer.gate.measurement import Contender, Write, measure
from trainer.reward.rewarder import Answer

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
    corpus = corpus_of(events(dislike), catalogue_with(), settings)
    found = cases(corpus.sessions.test, corpus.row_of, corpus.spec, mask_seen=True)
    asked = [prompted(one, corpus.spec, corpus.text_of) for one in found]
    context = Context(corpus, settings, HashEmbedder, "hash", tmp_path)
    measured = measure(Contender("new", silent, context), found, asked, len, settings)

    assert [one.session.user_id for one in found] == ["ann"]
    assert measured.ranking.tolist() == pytest.approx([ndcg], abs=1e-4)


def catalogue_with(**changes: object) -> list[Item]:
    """The hit has changed."""
    names = ("cup", "hit", "runner-up", "tea")
    return [one.model_copy(update=changes if one.item_id == "hit" else {}) for one in items(*names)]


def ranking_of_ann(catalogue: list[Item], settings: Settings, folder: Path) -> list[float]:
    """Who buys the runner-up, which the hit stands before."""
    corpus = corpus_of(events(None), catalogue, settings)
    found = cases(corpus.sessions.test, corpus.row_of, corpus.spec, mask_seen=True)
    asked = [prompted(one, corpus.spec, corpus.text_of) for one in found]
    context = Context(corpus, settings, HashEmbedder, "hash", folder)
    return measure(Contender("new", silent, context), found, asked, len, settings).ranking.tolist()


def test_what_is_not_to_be_had_takes_no_place(settings: Settings, tmp_path: Path) -> None:
    gone = catalogue_with(available=False)

    assert ranking_of_ann(gone, settings, tmp_path) == [1.0]


def test_what_was_chosen_could_be_had_then(settings: Settings, tmp_path: Path) -> None:
    gone = [one.model_copy(update={"available": False}) for one in catalogue_with()]

    assert ranking_of_ann(gone, settings, tmp_path) == [1.0]


def test_the_ranking_is_diversified_as_the_served_list_is(make_settings, tmp_path: Path) -> None:
    """The runner-up is so much like the hit that everything else goes before it."""
    ranking = POPULARITY_ALONE | {"diversity": 0.9}
    train = {"sessions": {"min_history": 2, "test": 0.02, "validation": 0.02}}
    settings = make_settings(ranking=ranking, train=train)
    twins = catalogue_with(title="runner-up thing")

    assert ranking_of_ann(twins, settings, tmp_path) == pytest.approx([1 / np.log2(5)])


def faithful(prompts: Sequence[str]) -> list[Answer]:
    """Repeats the items that it is shown."""
    shown = ["; ".join(re.findall(r"\w+ \d thing", prompt)) for prompt in prompts]
    return [Answer(f" {text}", 9, finished=True) for text in shown]


@pytest.mark.parametrize(("write", "passed"), [(faithful, True), (silent, False)])
def test_only_what_the_model_writes_is_put_to_the_shuffled_control(
    make_settings, tmp_path, write: Write, passed: bool
) -> None:
    """Sentences that stand in for what was never written would pass in the model's place."""
    settings = make_settings(train={"sessions": {"min_history": 2, "test": 0.3}})
    themes = ("tea", "cat", "lace", "felt", "soap", "oak")
    events = [bought(t, f"{t} {n}", day) for t in themes for n, day in enumerate((1, 2, 40))]
    corpus = corpus_of(events, items(*(f"{t} {n}" for t in themes for n in range(3))), settings)
    found = cases(corpus.sessions.test, corpus.row_of, corpus.spec, mask_seen=False)
    asked = [prompted(one, corpus.spec, corpus.text_of) for one in found]
    context = Context(corpus, settings, HashEmbedder, "hash", tmp_path)
    measured = measure(Contender("new", write, context), found, asked, len, settings)

    assert len(found) == len(themes)
    assert measured.ranking.mean() > 0.3  # as served, either way
    assert shuffled_control(measured, settings).passed == passed


def test_profiles_are_measured_at_the_length_that_they_are_served_with(
    make_settings, tmp_path: Path
) -> None:
    class Reading(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            read.extend(texts)
            return super().embed(texts)

    read: list[str] = []
    train = {"sessions": {"min_history": 2, "test": 0.3}}
    settings = make_settings(train=train, profile={"max_tokens": 64})
    names = [f"tea {n}" for n in range(12)]
    corpus = corpus_of(
        [bought("ann", one, n) for n, one in enumerate(names)], items(*names), settings
    )
    found = cases(corpus.sessions.test, corpus.row_of, corpus.spec, mask_seen=False)
    asked = [prompted(one, corpus.spec, corpus.text_of) for one in found]
    context = Context(corpus, settings, Reading, "hash", tmp_path)
    measure(Contender("new", faithful, context), found, asked, len, settings)

    profiles = [text for text in read if text not in corpus.embedding_texts()[1]]
    assert profiles
    assert all(len(text) <= 64 for text in profiles)  # a token each, by `len`


def shuffled_control(measured: Measured, settings: Settings) -> Check:
    checks = judge(measured, measured, measured, settings.train.gate, Window(1, 0, 0)).checks
    return next(check for check in checks if check.name == "shuffled profile")
