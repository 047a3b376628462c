from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.settings import TriggerSettings, WindowSettings
from streams.triggers import (
    NEVER,
    Marks,
    TokenBucket,
    next_emptying,
    staleness,
)
from streams.windows import DAY_MS, HOUR_MS

NOW = 1_300_000_000_000
SPEC = TriggerSettings(evidence=4, first_evidence=1, threshold=1, hard_age_days=180)
SPANS = WindowSettings()


def due(
    evidence: float = 0.0, newest: int = NOW, asked: int = NOW, edited: bool = False, now: int = NOW
):
    return staleness(Marks(evidence, newest, asked, edited), now, SPEC, SPANS)


def test_a_first_profile_is_due_once_there_is_evidence_for_one():
    assert due(0.9, asked=NEVER).rule is None
    assert due(1.0, asked=NEVER).rule == "first"


def test_new_evidence_makes_a_profile_due_at_the_threshold():
    assert due(3.9).rule is None
    assert due(4.0).rule == "evidence"


def test_a_little_evidence_is_enough_once_the_profile_is_old():
    later = NOW + 10 * DAY_MS
    assert due(0.1, newest=later, now=later).rule is None
    assert due(0.1, newest=NOW + 60 * DAY_MS, now=NOW + 60 * DAY_MS).rule == "evidence"


def test_the_hard_limit_makes_any_change_due():
    late = NOW + 180 * DAY_MS
    assert due(0.01, newest=late, now=late).rule == "hard"


def test_a_silent_user_is_due_when_the_short_window_empties():
    assert due(now=NOW + 48 * HOUR_MS - 1).rule is None
    assert due(now=NOW + 48 * HOUR_MS).rule == "silent"


def test_a_silent_user_is_due_once_for_each_window():
    short_end, medium_end = NOW + 48 * HOUR_MS, NOW + 60 * DAY_MS
    assert due(asked=short_end, now=short_end + DAY_MS).rule is None
    assert due(asked=short_end, now=medium_end).rule == "silent"
    assert next_emptying(Marks(0, NOW, NOW + 800 * DAY_MS, False), SPANS) is None


def test_an_edit_makes_a_profile_due_at_once():
    assert due(edited=True).rule == "edit"


@given(st.floats(0, 100), st.floats(0, 100), st.integers(0, 400 * DAY_MS))
def test_more_evidence_is_never_less_stale(evidence, more, age):
    assert due(evidence + more, now=NOW + age).staleness >= due(evidence, now=NOW + age).staleness


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 5)), max_size=50))
def test_the_budget_is_never_overspent(steps):
    bucket, now, spent = TokenBucket.full(0.5, 10, 0.0), 0.0, 0
    for wait, wanted in steps:
        now += wait
        calls = min(wanted, bucket.available(now))
        bucket.spend(calls)
        spent += calls
    assert spent <= 10 + 0.5 * now + 1e-6


@pytest.mark.parametrize("rate", [0.1, 2.0])
def test_a_bucket_saves_up_no_more_than_its_burst(rate):
    bucket = TokenBucket.full(rate, 3, 0.0)
    assert bucket.available(1e6) == 3
