"""Learning rates, against values that were worked out by hand."""

from __future__ import annotations

import pytest

from trainer.learning.schedules import cosine_with_warmup, half_cosine, linear_with_warmup


def test_a_cosine_rises_then_falls_to_its_least_and_stays_there() -> None:
    rates = [
        cosine_with_warmup(step, peak=2.0, warmup=5, end=100, least=0.1) / 2 for step in range(120)
    ]

    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    # half of the cosine, at step 5 + 95/2: .1 + .9 · ½ = .55, between steps 52 and 53
    assert rates[52] > 0.55 > rates[53]
    assert rates[99] == pytest.approx(0.1, abs=0.001)
    assert rates[100] == rates[-1] == pytest.approx(0.1)


def test_a_line_rises_and_falls_to_nothing_after_the_last_step() -> None:
    rates = [linear_with_warmup(step, peak=1.0, warmup=2, end=10) for step in range(11)]

    assert rates == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])


def test_half_a_cosine_begins_at_its_peak() -> None:
    rates = [half_cosine(step, peak=1.0, end=4) for step in range(5)]

    # (1 + cos(0, π/4, π/2, 3π/4, π)) / 2
    assert rates == pytest.approx([1.0, 0.853553, 0.5, 0.146447, 0.0], abs=1e-6)


def test_a_run_of_one_step_learns_at_its_peak() -> None:
    assert cosine_with_warmup(0, peak=1.0, warmup=1, end=1, least=0.1) == 1.0
    assert linear_with_warmup(0, peak=1.0, warmup=1, end=1) == 1.0
