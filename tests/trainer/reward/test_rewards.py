"""Rewards against arithmetic written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.schemas import SentenceCounts
from models.training_settings import RlsoSettings
from trainer.reward.rewards import Target, grounding, log_lift, ndcg, plateau, rewards

SETTINGS = RlsoSettings(
    similarity=0.1,
    similarity_temperature=0.1,
    grounding=0.1,
    length=0.05,
    min_tokens=8,
    max_tokens=80,
)


def target(*next_items: int, seen: tuple[int, ...] = ()) -> Target:
    return Target(np.array(next_items, np.int64), np.array(seen, np.int64))


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def test_the_reward_of_one_target_is_one_over_log2_of_its_rank_plus_one() -> None:
    assert ndcg(scores(0.9, 0.5, 0.3, 0.1), target(0)) == pytest.approx(1.0)
    assert ndcg(scores(0.9, 0.5, 0.3, 0.1), target(1)) == pytest.approx(1 / math.log2(3))
    assert ndcg(scores(0.9, 0.5, 0.3, 0.1), target(3)) == pytest.approx(1 / math.log2(5))


def test_several_targets_are_measured_against_their_best_order() -> None:
    gained = 1 / math.log2(3) + 1 / math.log2(4)  # ranks 2 and 3
    best = 1 / math.log2(2) + 1 / math.log2(3)  # ranks 1 and 2

    assert ndcg(scores(0.9, 0.5, 0.3), target(1, 2)) == pytest.approx(gained / best)


def test_seen_items_take_no_rank() -> None:
    assert ndcg(scores(0.9, 0.5, 0.3), target(2, seen=(0, 1))) == pytest.approx(1.0)


def test_tied_items_share_their_discounts() -> None:
    ranks_2_and_3 = (1 / math.log2(3) + 1 / math.log2(4)) / 2

    assert ndcg(scores(0.9, 0.5, 0.5), target(2)) == pytest.approx(ranks_2_and_3)


def test_the_log_lift_is_that_of_the_targets_shares_of_the_softmax_over_chance() -> None:
    odds = [math.exp(score / 0.1) for score in (0.3, 0.2, 0.1)]
    lifts = [math.log(3 * odd / sum(odds)) for odd in odds]
    assert lifts[2] < 0 < lifts[0]

    both = log_lift(scores(0.3, 0.2, 0.1, 9.0), target(0, 2, seen=(3,)), 0.1)

    assert both == pytest.approx(lifts[0] / 2)  # the third is less likely than chance: 0


def test_missing_every_target_is_worth_no_less_than_saying_nothing() -> None:
    assert log_lift(scores(0.9, 0.1, 0.0), target(1, 2), 0.1) == 0.0


def test_a_profile_that_says_nothing_has_the_log_lift_of_chance() -> None:
    assert log_lift(scores(0.0, 0.0, 0.0), target(0, 2), 0.1) == pytest.approx(0.0)


def test_grounding_is_the_share_of_statements_kept() -> None:
    assert grounding(SentenceCounts(kept=3, rejected=1, extractive=2)) == 0.75
    assert grounding(SentenceCounts(kept=0, rejected=0, extractive=2)) == 0.0


@pytest.mark.parametrize(
    ("tokens", "worth"), [(7, 0.0), (8, 1.0), (40, 1.0), (80, 1.0), (81, 0.0), (None, 0.0)]
)
def test_length_is_rewarded_on_a_plateau_only(tokens: int | None, worth: float) -> None:
    assert plateau(tokens, 8, 80) == worth


def test_the_total_is_the_weighted_sum_of_the_parts() -> None:
    items = np.eye(3, dtype=np.float32)
    profiles = np.array([[0.68, 0.73, 0.0]], np.float32)  # the target is second
    odds = [math.exp(score / 0.1) for score in (0.68, 0.73, 0.0)]
    counts = [SentenceCounts(kept=1, rejected=1)]

    found = rewards(profiles, items, [target(0)], counts, [20], SETTINGS)

    ranked, near = 1 / math.log2(3), max(0.0, math.log(3 * odds[0] / sum(odds)))
    assert found.ndcg[0] == pytest.approx(ranked)
    assert found.similarity[0] == pytest.approx(near, rel=1e-4)
    assert found.total[0] == pytest.approx(ranked + 0.1 * near + 0.1 * 0.5 + 0.05, rel=1e-5)
    assert found.means()["grounding"] == 0.5


vectors = st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=12)


@given(vectors, st.data())
def test_ndcg_is_the_mean_over_all_orders_of_ties(values: list[float], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, unique=True))
    found = ndcg(np.array(values), target(*chosen))

    orders = [_ndcg_by_sorting(values, chosen, seed) for seed in range(300)]

    assert found == pytest.approx(np.mean(orders), abs=0.06)
    assert 0.0 < found <= 1.0 + 1e-12


def _ndcg_by_sorting(values: list[float], chosen: list[int], seed: int) -> float:
    shuffled = np.random.default_rng(seed).permutation(len(values))
    order = sorted(shuffled, key=lambda row: -values[row])
    gained = sum(1 / math.log2(order.index(row) + 2) for row in chosen)
    return gained / sum(1 / math.log2(rank + 2) for rank in range(len(chosen)))


@given(vectors, st.data())
def test_a_better_score_of_a_target_never_lowers_the_reward(
    values: list[float], data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(values) - 1))
    raised = np.array(values)
    raised[row] += 0.6

    assert ndcg(raised, target(row)) >= ndcg(np.array(values), target(row)) - 1e-12
    assert log_lift(raised, target(row), 0.1) >= log_lift(np.array(values), target(row), 0.1)
