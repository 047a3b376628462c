"""Intervals over users."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.bootstrap import interval, lower_bound, per_user, resampled_means


def test_a_users_sessions_count_as_one_user() -> None:
    values = per_user(["bob", "ann", "bob"], np.array([1.0, 0.2, 0.0]))

    assert values.tolist() == [0.2, 0.5]  # ann, bob


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 9))
def test_the_mean_lies_within_the_bounds_of_the_values(values: list[float], seed: int) -> None:
    found = interval(np.array(values), resamples=100, seed=seed)

    assert found.mean == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(50)

    assert interval(values, seed=3) == interval(values, seed=3) != interval(values, seed=4)


def test_the_interval_of_many_users_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).random(2_000)
    half = 1.96 * values.std() / np.sqrt(2_000)

    found = interval(values, resamples=2_000)

    assert found.high - found.mean == pytest.approx(half, rel=0.15)
    assert found.mean - found.low == pytest.approx(half, rel=0.15)


def test_resampling_in_parts_is_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(40)
    whole = resampled_means(values, 30, seed=1)
    monkeypatch.setattr("trainer.evaluation.bootstrap._CELLS", 40 * 7)

    assert resampled_means(values, 30, seed=1).tolist() == whole.tolist()


def test_a_steady_gain_has_a_lower_bound_above_zero_and_noise_has_not() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 500)

    assert lower_bound(noise + 0.05, 0.95, 500) > 0
    assert lower_bound(noise - noise.mean(), 0.95, 500) < 0


def test_the_bound_of_nobody_is_unknown() -> None:
    assert np.isnan(lower_bound(np.empty(0), 0.95, 100))
    assert np.isnan(interval(np.empty(0)).mean)
