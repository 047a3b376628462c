"""Ranking by what was known earlier."""

from __future__ import annotations

import pytest

from models.training_settings import EvaluationSettings
from tests.trainer.corpora import bought, corpus_of, items, settings_with
from trainer.baselines.counted import HadBeforeSystem
from trainer.data.corpus import Corpus
from trainer.evaluation.ageing import aged_sessions, by_age


@pytest.fixture
def corpus() -> Corpus:
    """Ann buys a new thing every ten days, then the newest of them again."""
    days = [10 * n for n in range(10)]
    events = [bought("ann", f"i{n}", day) for n, day in enumerate(days)]
    events += [bought("ann", "i9", 100)]
    catalogue = items(*(f"i{n}" for n in range(10)))
    return corpus_of(events, catalogue, settings_with(test=0.09, validation=0.2, per_user=9))


def test_each_session_is_asked_with_every_earlier_state_and_its_own(corpus: Corpus) -> None:
    (last,) = corpus.sessions.test
    every = [*corpus.sessions.train, *corpus.sessions.validation, *corpus.sessions.test]

    aged, ages = aged_sessions([last], every)

    assert ages.tolist() == [70, 60, 50, 40, 30, 20, 10, 0]
    assert [session.targets for session in aged] == [("i9",)] * 8
    assert [len(session.history) for session in aged] == [3, 4, 5, 6, 7, 8, 9, 10]


def test_what_was_known_too_early_does_not_know_the_newest_item(corpus: Corpus) -> None:
    system = HadBeforeSystem(corpus, half_life_days=5.0)

    found = by_age(corpus, [system], corpus.sessions.test, EvaluationSettings(ks=(1,)), "recall@1")

    assert found.sessions == {"0–1 days": 1, "1–30 days": 2, "30–90 days": 5}
    assert [interval.mean for interval in found.curves["had-before"]] == [1, 0, 0]
