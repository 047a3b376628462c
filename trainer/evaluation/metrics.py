"""Ranks in a full catalogue, and what is counted from them.

    recall@k   share of a session's targets among the first k
    NDCG@k     Σ 1/log2(1 + rank) over targets with rank ≤ k, divided by the largest such sum
    MRR        1 / rank of the best-ranked target

For one target recall@k is the hit rate and NDCG@k is 1/log2(1 + rank) (methods §10.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.training_settings import metric_names

Columns = NDArray[np.int64]  # columns of a score matrix
Ranks = NDArray[np.int64]  # from 1
_TIES: Final = 1_000_003  # mixed with the seed so that tie keys are those of no other choice


def tie_keys(items: int, seed: int) -> NDArray[np.uint32]:
    """[items] a seeded random order in which items of equal score stand.

    Not by column: ids often follow time or category, and an order that means something would
    favour systems with many ties.
    """
    return np.random.default_rng((_TIES, seed)).permutation(items).astype(np.uint32)


def masked(scores: NDArray[np.floating], seen: Sequence[Columns]) -> NDArray[np.float32]:
    """A copy in which each session's seen items cannot be ranked. NaN counts as the lowest."""
    found = np.array(scores, np.float32)
    found[np.isnan(found)] = -np.inf
    for session, rows in enumerate(seen):
        found[session, rows] = -np.inf
    return found


def ranks_of(
    scores: NDArray[np.floating], targets: Sequence[Columns], ties: NDArray[np.uint32]
) -> list[Ranks]:
    """Per session the rank of each target among all items that are not at -inf.

    Equal scores stand in order of `ties`. A target at -inf ranks behind the whole catalogue.
    """
    return [
        np.array([_rank(row, int(target), ties) for target in wanted], np.int64)
        for row, wanted in zip(scores, targets, strict=True)
    ]


def _rank(row: NDArray[np.floating], target: int, ties: NDArray[np.uint32]) -> int:
    score = row[target]
    if score == -np.inf:
        return len(row) + 1
    better = np.count_nonzero(row > score)
    equal = (row == score) & (ties < ties[target])
    return int(better + np.count_nonzero(equal) + 1)


def top_rows(row: NDArray[np.floating], k: int, ties: NDArray[np.uint32]) -> Columns:
    """The first k columns, best first; fewer where not so many can be ranked."""
    k = min(k, len(row))
    reached = np.partition(row, len(row) - k)[len(row) - k]
    found = np.flatnonzero((row >= reached) & (row > -np.inf))
    order = np.lexsort((ties[found], -row[found]))
    return found[order][:k]


def recall_at(ranks: Ranks, k: int) -> float:
    """Share of the targets with rank ≤ k."""
    return float(np.mean(ranks <= k))


def ndcg_at(ranks: Ranks, k: int) -> float:
    """Discounted gain of the targets with rank ≤ k over the best possible."""
    gains = np.sum(1 / np.log2(1 + ranks[ranks <= k]))
    best = np.sum(1 / np.log2(2 + np.arange(min(len(ranks), k))))
    return float(gains / best)


def mrr(ranks: Ranks) -> float:
    """1 / rank of the best-ranked target."""
    return float(1 / ranks.min())


_AT: Final = {"recall": recall_at, "ndcg": ndcg_at}  # kind → its value at a cut-off


def session_metrics(ranks: Sequence[Ranks], ks: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Metric → [sessions]; the names are those of `metric_names`."""
    by_name = {f"{kind}@{k}": [at(r, k) for r in ranks] for kind, at in _AT.items() for k in ks}
    by_name["mrr"] = [mrr(found) for found in ranks]
    return {name: np.array(by_name[name], np.float64) for name in metric_names(ks)}


class Exposure(NamedTuple):
    """What a system shows over all sessions."""

    coverage: float  # share of the catalogue that stands in any list
    popularity: float  # mean share of the users known before the test who had a listed item
    gini: float  # 0: all items are listed equally often; 1: one item only


def exposure(listed: NDArray[np.int64], popularity: NDArray[np.floating]) -> Exposure:
    """`listed` [items]: in how many lists an item stands; `popularity` [items]: share of users."""
    total = listed.sum()
    if not total:
        return Exposure(0.0, 0.0, 0.0)
    return Exposure(
        coverage=float(np.mean(listed > 0)),
        popularity=float((listed * popularity).sum() / total),
        gini=_gini(listed),
    )


def _gini(counts: NDArray[np.int64]) -> float:
    ordered = np.sort(counts).astype(np.float64)
    places = np.arange(1, len(ordered) + 1)
    return float(2 * (places * ordered).sum() / (len(ordered) * ordered.sum())) - (
        len(ordered) + 1
    ) / len(ordered)
