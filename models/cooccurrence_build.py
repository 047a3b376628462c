"""Counts who had what together → a co-occurrence snapshot.

similarity(i, j) = Σ over users of w(u,i) · w(u,j) · ½^(|t(u,i) − t(u,j)| / half-life)
                   divided by sqrt(Σ w(u,i)² · Σ w(u,j)²)

w(u,i) is the strongest evidence of user u for item i and t(u,i) the newest time of it. Without
the decay this is the cosine of the columns of the user × item matrix. The decay is by the time
between the two, not by their age: things bought in one week belong together more than things
bought years apart, and an old pair says as much as a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from models.cooccurrence import Cooccurrence
from models.settings import DAY_S

MAX_STEPS: Final = 100  # items further apart in one user's sequence are not counted as a pair
_PAIRS_AT_ONCE: Final = 4_000_000  # bounds the memory of the count, about 100 MB
_DAY_MS: Final = DAY_S * 1000


@dataclass(frozen=True, slots=True)
class Evidence:
    """Positive evidence, one row per user and item."""

    ids: tuple[str, ...]  # ascending item ids
    users: NDArray[np.int64]  # [rows], numbered in order of user id
    items: NDArray[np.int64]  # [rows], positions in ids
    weights: NDArray[np.float64]  # [rows], strongest evidence, above 0
    timestamps: NDArray[np.int64]  # [rows], newest, epoch ms

    def ordered(self) -> Evidence:
        """The same rows by user, time and item."""
        order = np.lexsort((self.items, self.timestamps, self.users))
        return Evidence(
            self.ids,
            self.users[order],
            self.items[order],
            self.weights[order],
            self.timestamps[order],
        )


def build(
    evidence: Evidence,
    *,
    neighbours: int,
    half_life_days: float,
    popularity_half_life_days: float,
) -> Cooccurrence:
    """Count pairs, normalise, keep the nearest `neighbours` of each item (ties by item id)."""
    rows = evidence.ordered()
    similar = _normalise(_count_pairs(rows, half_life_days), rows)
    indptr, columns, values = _nearest(similar, neighbours)
    return Cooccurrence(
        id=_input_hash(rows, neighbours, half_life_days, popularity_half_life_days),
        ids=rows.ids,
        indptr=indptr,
        columns=columns,
        values=values,
        popularity=_popularity(rows, popularity_half_life_days),
    )


def _input_hash(rows: Evidence, *settings: float) -> str:
    found = hashlib.sha256(repr((MAX_STEPS, settings)).encode())
    found.update("\n".join(rows.ids).encode())
    for array in (rows.users, rows.items, rows.weights, rows.timestamps):
        found.update(array.tobytes())
    return found.hexdigest()[:32]


def _count_pairs(rows: Evidence, half_life_days: float) -> Any:
    size = len(rows.ids)
    counts = sparse.csr_matrix((size, size))
    for left, right, weights in _in_chunks(_pairs_by_step(rows, half_life_days)):
        counts = counts + sparse.coo_matrix((weights, (left, right)), shape=(size, size)).tocsr()
    return counts + counts.T


Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _pairs_by_step(rows: Evidence, half_life_days: float) -> Iterator[Pairs]:
    """Pairs that are 1, 2, … steps apart in the sequence of one user."""
    for step in range(1, min(MAX_STEPS, len(rows.users) - 1) + 1):
        first = np.flatnonzero(rows.users[step:] == rows.users[:-step])
        if not len(first):
            return
        second = first + step
        days = (rows.timestamps[second] - rows.timestamps[first]) / _DAY_MS
        decay = np.exp2(-days / half_life_days)
        yield (
            rows.items[first],
            rows.items[second],
            rows.weights[first] * rows.weights[second] * decay,
        )


def _in_chunks(pairs: Iterator[Pairs]) -> Iterator[Pairs]:
    held: list[Pairs] = []
    for found in pairs:
        held.append(found)
        if sum(len(left) for left, _, _ in held) >= _PAIRS_AT_ONCE:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: list[Pairs]) -> Pairs:
    left, right, weights = zip(*held, strict=True)
    return np.concatenate(left), np.concatenate(right), np.concatenate(weights)


def _normalise(counts: Any, rows: Evidence) -> Any:
    squares = np.bincount(rows.items, rows.weights**2, minlength=len(rows.ids))
    scale = sparse.diags(1 / np.sqrt(np.where(squares > 0, squares, 1.0)))
    return (scale @ counts @ scale).tocsr()


def _nearest(
    similar: Any, neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    similar.sort_indices()  # columns ascend, so a stable sort leaves ties in order of item id
    indptr = [0]
    columns, values = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for row in range(similar.shape[0]):
        cells = slice(similar.indptr[row], similar.indptr[row + 1])
        order = np.argsort(-similar.data[cells], kind="stable")[:neighbours]
        columns.append(similar.indices[cells][order].astype(np.int32))
        values.append(similar.data[cells][order].astype(np.float32))
        indptr.append(indptr[-1] + len(order))
    return np.array(indptr, np.int64), np.concatenate(columns), np.concatenate(values)


def _popularity(rows: Evidence, half_life_days: float) -> NDArray[np.float64]:
    if not len(rows.timestamps):
        return np.zeros(len(rows.ids))
    ages = (rows.timestamps.max() - rows.timestamps) / _DAY_MS
    decayed = rows.weights * np.exp2(-ages / half_life_days)
    return np.bincount(rows.items, decayed, minlength=len(rows.ids)).astype(np.float64)
