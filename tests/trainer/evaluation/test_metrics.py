"""Ranks and metrics against arithmetic written out."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.metrics import (
    exposure,
    masked,
    mrr,
    ndcg_at,
    ranks_of,
    recall_at,
    session_metrics,
    tie_keys,
    top_rows,
)

IN_ORDER = np.arange(6, dtype=np.uint32)


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_the_rank_is_one_more_than_the_number_of_better_items() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.3, 0.2, 0.0]])

    (ranks,) = ranks_of(scores, [rows(1, 3, 5)], IN_ORDER)

    assert ranks.tolist() == [1, 3, 6]


def test_equal_scores_stand_in_the_order_of_the_tie_keys() -> None:
    scores = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    keys = np.array([2, 0, 1, 5, 4, 3], np.uint32)

    (ranks,) = ranks_of(scores, [rows(0, 1, 2, 3, 5)], keys)

    assert ranks.tolist() == [3, 1, 2, 6, 4]


def test_seen_items_are_not_ranked_and_the_scores_given_stay_as_they_are() -> None:
    scores = np.array([[0.9, 0.8, 0.7, np.nan, 0.0, 0.0]])

    left = masked(scores, [rows(0)])

    (ranks,) = ranks_of(left, [rows(1, 2)], IN_ORDER)
    assert ranks.tolist() == [1, 2]
    assert scores[0, 0] == 0.9
    assert left[0, 0] == left[0, 3] == -np.inf  # what is not a number is behind everything


def test_an_item_that_cannot_be_ranked_stands_behind_the_whole_catalogue() -> None:
    (ranks,) = ranks_of(masked(np.ones((1, 6)), [rows(2)]), [rows(2)], IN_ORDER)

    assert ranks.tolist() == [7]


def test_one_target_gives_the_hit_rate_and_the_discount_of_its_rank() -> None:
    ranks = rows(3)

    assert recall_at(ranks, 2) == 0
    assert recall_at(ranks, 3) == 1
    assert ndcg_at(ranks, 10) == pytest.approx(1 / log2(4))
    assert ndcg_at(ranks, 2) == 0
    assert mrr(ranks) == pytest.approx(1 / 3)


def test_many_targets_are_set_against_the_best_possible_list() -> None:
    ranks = rows(1, 4, 30)

    gained = 1 / log2(2) + 1 / log2(5)
    best_of_10 = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)
    best_of_2 = 1 / log2(2) + 1 / log2(3)
    assert recall_at(ranks, 10) == pytest.approx(2 / 3)
    assert ndcg_at(ranks, 10) == pytest.approx(gained / best_of_10)
    assert ndcg_at(ranks, 2) == pytest.approx(1 / best_of_2)
    assert mrr(ranks) == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8, unique=True))
def test_metrics_lie_between_0_and_1_and_recall_grows_with_k(found: list[int]) -> None:
    values = session_metrics([rows(*found)], (5, 10, 20))

    assert all(0 <= value[0] <= 1 for value in values.values())
    assert values["recall@5"] <= values["recall@10"] <= values["recall@20"]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=12), st.integers(0, 5))
def test_the_list_and_the_ranks_agree(scores: list[float], seed: int) -> None:
    row, keys = np.array(scores, np.float32), tie_keys(len(scores), seed)

    listed = top_rows(row, 3, keys)

    (ranks,) = ranks_of(row[None], [listed], keys)
    assert ranks.tolist() == [1, 2, 3]


def test_all_equal_scores_rank_at_random_and_the_same_for_the_same_seed() -> None:
    row = np.zeros((1, 1_000))
    targets = [np.arange(1_000)]

    (first,) = ranks_of(row, targets, tie_keys(1_000, 1))
    (again,) = ranks_of(row, targets, tie_keys(1_000, 1))
    (other,) = ranks_of(row, targets, tie_keys(1_000, 2))

    assert first.tolist() == again.tolist() != other.tolist()
    assert sorted(first.tolist()) == list(range(1, 1_001))


def test_a_list_has_no_items_that_cannot_be_ranked() -> None:
    row = masked(np.array([[0.9, 0.8, 0.7]]), [rows(0, 1)])[0]

    assert top_rows(row, 3, IN_ORDER[:3]).tolist() == [2]


def test_exposure_of_three_lists_is_counted_out() -> None:
    listed = np.array([3, 1, 0, 0])  # item 0 in three lists, item 1 in one
    popularity = np.array([0.5, 0.1, 0.0, 0.2])

    found = exposure(listed, popularity)

    assert found.coverage == 2 / 4
    assert found.popularity == pytest.approx((3 * 0.5 + 1 * 0.1) / 4)
    # Gini of (0, 0, 1, 3): 2·(3·1 + 4·3) / (4·4) − 5/4
    assert found.gini == pytest.approx(30 / 16 - 1.25)


def test_equal_exposure_has_no_inequality() -> None:
    assert exposure(np.array([2, 2, 2]), np.zeros(3)).gini == pytest.approx(0)
