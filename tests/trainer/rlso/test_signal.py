"""A reward that repeats on the other half of the next items can be learned from; luck does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.reward.rewards import Target, ndcg
from trainer.rlso.signal import signals, table_of

ITEMS, ANSWERS, PROMPTS = 60, 8, 40


def targets(size: int = 6) -> list[Target]:
    draw = np.random.default_rng(1)
    return [
        Target(draw.choice(ITEMS, size, replace=False), np.array([], np.int64))
        for _ in range(PROMPTS)
    ]


def scores(lifted: float, wanted: list[Target]) -> np.ndarray:
    """Noise, in which answer k lifts all targets of its prompt by k times `lifted`."""
    made = np.random.default_rng(2).normal(0, 1, (PROMPTS, ANSWERS, ITEMS))
    for row, target in enumerate(wanted):
        made[row][:, target.next] += lifted * np.arange(ANSWERS)[:, None]
    return made


def mean_score(row: np.ndarray, target: Target) -> float:
    return float(row[target.next].mean())


def test_what_lifts_all_targets_agrees_between_the_halves() -> None:
    wanted = targets()

    found = signals(scores(0.5, wanted), wanted, {"ndcg": ndcg, "score": mean_score})

    assert found["score"].agreement > 0.7
    assert found["score"].gain.low > 0.05
    assert found["ndcg"].gain.low > 0.05


def test_what_is_worth_the_same_to_anybody_agrees_on_another_users_items_too() -> None:
    wanted = targets()
    louder = scores(0.0, wanted) + 2.0 * np.arange(ANSWERS)[:, None]  # answer k: all items by 2k

    found = signals(louder, wanted, {"score": mean_score})["score"]
    about_the_user = signals(scores(2.0, wanted), wanted, {"score": mean_score})["score"]

    assert min(found.agreement, found.anybody) > 0.9
    assert about_the_user.agreement > 0.9 > 0.6 > about_the_user.anybody


def test_luck_does_not_agree() -> None:
    wanted = targets()

    found = signals(scores(0.0, wanted), wanted, {"score": mean_score})["score"]

    assert max(abs(found.agreement), abs(found.anybody)) < 0.15
    assert found.gain.low < 0 < found.gain.high


def test_mean_and_spread_are_those_of_all_next_items() -> None:
    row = np.array([[[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]]])  # the target is first, then last
    one = Target(np.array([0]), np.array([], np.int64))

    found = signals(row, [one], {"ndcg": ndcg, "score": mean_score})

    assert found["score"].mean == 2.0
    assert found["score"].spread == 1.0
    assert found["ndcg"].mean == pytest.approx((1 + 1 / math.log2(4)) / 2)
    assert math.isnan(found["ndcg"].agreement)  # one next item has no halves
    assert math.isnan(found["ndcg"].gain.mean)


def test_the_table_has_a_line_for_each_reward() -> None:
    wanted = targets()

    lines = table_of(signals(scores(0.5, wanted), wanted, {"ndcg": ndcg})).splitlines()

    assert len(lines) == 3
    assert lines[2].startswith("| ndcg | 0.")
