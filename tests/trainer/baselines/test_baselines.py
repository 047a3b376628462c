"""Baselines on data small enough to rank by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import TrainingError
from models.fakes import HashEmbedder
from models.settings import IndexSettings, load_settings
from tests.trainer.corpora import bought, corpus_of, items, settings_with
from trainer.baselines.counted import (
    HadBeforeSystem,
    PopularitySystem,
    RandomSystem,
    users_per_item,
)
from trainer.baselines.training_free import (
    COOCCURRENCE,
    HISTORY_TEXT,
    LAST_ITEM_TEXT,
    STAR,
    RankingSystem,
    catalogue_of,
    evidence_of,
    neighbours_of,
)
from trainer.data.corpus import Corpus
from trainer.evaluation.context import Context
from trainer.evaluation.registry import build_systems, names


@pytest.fixture
def corpus() -> Corpus:
    """Tea and cup are always bought together; ann has tea last."""
    events = [
        *(bought(f"u{n}", item, n) for n in range(6) for item in ("cup", "tea")),
        *(bought("ann", item, 6 + day) for day, item in enumerate(("jam", "pot", "jam", "tea"))),
        *(bought("ann", "cup", 20 + day) for day in range(3)),
    ]
    catalogue = items("cup", "jam", "pot", "tea")
    return corpus_of(events, catalogue, settings_with(test=0.12, validation=0.06))


def ranking(corpus: Corpus, settings: object) -> RankingSystem:
    vectors = np.eye(4, dtype=np.float32)
    vectors[1] = (0.0, 0.8, 0.6, 0.0)  # jam is a little like pot
    catalogue = catalogue_of(corpus, vectors)
    neighbours = neighbours_of(corpus, catalogue, IndexSettings())
    return RankingSystem("r", catalogue, neighbours, settings, corpus.spec)  # type: ignore[arg-type]


def test_popularity_counts_users_before_the_test_once(corpus: Corpus) -> None:
    counts = dict(zip(corpus.item_ids, users_per_item(corpus), strict=True))

    assert counts == {"cup": 6, "jam": 1, "pot": 1, "tea": 7}  # ann bought jam twice


def test_recent_popularity_halves_with_the_half_life() -> None:
    events = [bought("ann", "tea", 0), bought("bob", "cup", 10), bought("cat", "cup", 10)]
    events += [bought("dan", "pot", 10 + n / 10) for n in range(1, 8)]
    corpus = corpus_of(events, items("cup", "pot", "tea"), settings_with(test=0.1))

    cup, _, tea = users_per_item(corpus, half_life_days=5.0)

    assert tea == pytest.approx(0.5 ** (10 / 5))  # of four users, dan is furthest ahead
    assert cup == pytest.approx(2.0)


def test_one_wrong_clock_takes_nothing_from_recent_popularity() -> None:
    events = [bought(f"u{n}", "tea", 10) for n in range(3)] + [bought("eve", "cup", 10)]
    stray = [bought("zoe", "pot", 6_000)]
    later = [bought("u1", "tea", 6_001 + n) for n in range(3)]  # the test

    corpus = corpus_of(events + stray + later, items("cup", "pot", "tea"), settings_with(test=0.3))

    assert users_per_item(corpus, half_life_days=5.0) == pytest.approx([1, 1, 3])


def test_popularity_is_the_same_for_everybody(corpus: Corpus) -> None:
    scores = PopularitySystem("popularity", users_per_item(corpus)).scores(corpus.sessions.test)

    assert scores.shape == (len(corpus.sessions.test), 4)
    assert (scores == scores[0]).all()


def test_random_orders_differ_by_session_and_not_by_batch(corpus: Corpus) -> None:
    sessions, system = corpus.sessions.test, RandomSystem(4, seed=0)

    together = system.scores(sessions)

    assert together[1].tolist() == system.scores(sessions[1:2])[0].tolist()
    assert together[0].tolist() != together[1].tolist()
    assert together.tolist() != RandomSystem(4, seed=1).scores(sessions).tolist()


def test_items_had_before_score_by_how_often_and_how_lately(corpus: Corpus) -> None:
    first = corpus.sessions.test[-1]
    row = HadBeforeSystem(corpus, half_life_days=10.0).scores([first])[0]
    score = dict(zip(corpus.item_ids, row, strict=True))

    assert score["jam"] > score["pot"] > 0  # twice, and the second time later


def test_the_last_items_text_says_nothing_about_itself(corpus: Corpus) -> None:
    session = corpus.sessions.validation[0]
    assert session.liked(corpus.spec)[-1] == "jam"

    row = ranking(corpus, LAST_ITEM_TEXT).scores([session])[0]

    assert row.tolist() == pytest.approx([0, 0, 0.6, 0], abs=1e-3)


def test_history_text_adds_the_items_by_age(corpus: Corpus) -> None:
    session = corpus.sessions.validation[0]  # jam, pot, jam

    row = ranking(corpus, HISTORY_TEXT).scores([session])[0]

    shares = np.array([1.0, 0.7]) / 1.7  # jam (newest), pot
    assert row[corpus.row_of["pot"]] == pytest.approx(shares[0] * 0.6, abs=1e-3)
    assert row[corpus.row_of["jam"]] == pytest.approx(shares[1] * 0.6, abs=1e-3)


def test_cooccurrence_is_the_cosine_of_users_times_the_share_of_the_recent_item(
    corpus: Corpus,
) -> None:
    session = corpus.sessions.test[-1]
    assert session.liked(corpus.spec) == ("jam", "pot", "jam", "tea")

    row = ranking(corpus, COOCCURRENCE).scores([session])[0]

    share_of_tea = 1 / (1 + 0.7 + 0.49)  # then jam, then pot
    together = 6 / (6 * 7) ** 0.5  # six users had both, six had cup, seven had tea
    assert row[corpus.row_of["cup"]] == pytest.approx(share_of_tea * together)


def test_star_is_a_third_of_text_and_cooccurrence(corpus: Corpus) -> None:
    sessions = corpus.sessions.test

    text, together, star = (
        ranking(corpus, settings).scores(sessions)
        for settings in (HISTORY_TEXT, COOCCURRENCE, STAR)
    )

    assert np.allclose(star, text / 3 + together, atol=2e-3)


def test_evidence_has_one_row_per_user_and_item_with_the_strongest_weight() -> None:
    events = [
        bought("ann", "tea", 0),
        bought("ann", "tea", 1, type="view"),
        bought("ann", "cup", 2, type="view"),
        *(bought("bob", "cup", 3 + n) for n in range(8)),
    ]
    corpus = corpus_of(events, items("cup", "tea"), settings_with(test=0.1))

    found = evidence_of(corpus)

    rows = zip(found.users, found.items, found.weights, strict=True)
    assert [(int(u), found.ids[i], round(float(w), 6)) for u, i, w in rows] == [
        (0, "cup", 0.2),
        (0, "tea", 1.0),
        (1, "cup", 1.0),
    ]


def test_every_registered_baseline_can_be_built(corpus: Corpus, tmp_path) -> None:
    embedder = HashEmbedder()
    context = Context(corpus, load_settings(), lambda: embedder, "fake", tmp_path)
    baselines = [name for name in names() if name in {"random", "star", "had-before"}]

    systems = build_systems(baselines, context)

    assert [system.name for system in systems] == baselines
    assert context.item_vectors.shape == (4, embedder.dimension)
    with pytest.raises(TrainingError, match="no system is called nosuch"):
        build_systems(["nosuch"], context)
