"""Counts who had what together → a co-occurrence snapshot (methods §5.4).

together(i, j) = Σ over users of w(u,i) · w(u,j) · ½^(|t(u,i) − t(u,j)| / half-life)
                 divided by sqrt(Σ w(u,i)² · Σ w(u,j)²)
similarity(i, j) = (n · together(i, j) + k · chance(i, j)) / (n + k)
chance(i, j) = sqrt(n(i) · n(j)) / users

w(u,i) is the strongest evidence of user u for item i and t(u,i) the newest time of it. Without
the decay `together` is the cosine of the columns of the user × item matrix. The decay is by the
time between the two, not by their age: things bought in one week belong together more than things
bought years apart, and an old pair says as much as a new one. Popularity decays by age, and
`models.ranking.data_now` says since when.

n users had both, n(i) had item i. What few users had together says little, so it is shrunk
towards `chance`, the cosine that items have whose users are drawn by lot; k is `support`.

Memory: one item is counted at a time, from the rows around each of its occurrences. What grows
with the log lies in files of the system (`on_disk`), about 24 bytes a row.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.ranking.cooccurrence import Cooccurrence
from models.ranking.data_now import STRAY
from models.ranking.recency import reached, recency
from models.settings import DAY_S

MAX_STEPS: Final = 100  # items further apart in one user's sequence are not counted as a pair
_PAIRS_AT_ONCE: Final = 1_000_000  # bounds the memory of the count, about 60 MB
_ROWS_AT_ONCE: Final = 1_000_000  # of the evidence, where all of it is gone through
_SPARSE: Final = 8  # fewer pairs than a catalogue's eighth are sorted rather than laid out
_DAY_MS: Final = DAY_S * 1000


@dataclass(frozen=True, slots=True)
class PositivePairs:
    """Positive evidence, one row per user and item."""

    ids: tuple[str, ...]  # ascending item ids
    users: NDArray[np.integer]  # [rows], numbered from 0 in order of user id
    items: NDArray[np.integer]  # [rows], positions in ids
    weights: NDArray[np.floating]  # [rows], strongest evidence, above 0
    timestamps: NDArray[np.int64]  # [rows], newest, epoch ms

    def ordered(self) -> PositivePairs:
        """The same rows by user, time and item; these themselves if they are."""
        if all(self._in_order(chunk) for chunk in _chunks(len(self.users))):
            return self
        order = np.lexsort((self.items, self.timestamps, self.users))
        return PositivePairs(
            self.ids,
            self.users[order],
            self.items[order],
            self.weights[order],
            self.timestamps[order],
        )

    def _in_order(self, chunk: slice) -> bool:
        """Whether no row of the chunk belongs before the one in front of it."""
        wide = slice(max(0, chunk.start - 1), chunk.stop)
        users, times, items = self.users[wide], self.timestamps[wide], self.items[wide]
        later = times[1:] > times[:-1]
        later |= (times[1:] == times[:-1]) & (items[1:] >= items[:-1])
        return bool(((users[1:] > users[:-1]) | ((users[1:] == users[:-1]) & later)).all())


def on_disk(rows: int, kind: DTypeLike, folder: Path | None) -> NDArray[Any]:
    """[rows], in a file without a name in `folder`; the system lends it memory and takes it back.

    None: in the folder for temporary files.
    """
    if not rows:
        return np.empty(0, kind)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, kind, "w+", shape=(rows,))


def _chunks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, rows))


def build(
    evidence: PositivePairs,
    *,
    neighbours: int,
    half_life_days: float,
    popularity_half_life_days: float,
    support: float = 0.0,
    scratch: Path | None = None,
) -> Cooccurrence:
    """Count pairs, normalise, keep the nearest `neighbours` of each item (ties by item id).

    `support` is k above, in users; 0 leaves the cosine as it is. `scratch`: where 4 bytes a row are
    laid down meanwhile.
    """
    rows = evidence.ordered()
    counting = _Counting(rows, half_life_days, support, scratch)
    nearest = [_nearest(counting.pairs_of(item), neighbours) for item in range(len(rows.ids))]
    settings = (neighbours, half_life_days, popularity_half_life_days, support)
    return Cooccurrence(
        id=_input_hash(rows, *settings),
        ids=rows.ids,
        indptr=np.cumsum([0, *(len(found.items) for found in nearest)], dtype=np.int64),
        columns=_joined([found.items for found in nearest], np.int32),
        values=_joined([found.similar for found in nearest], np.float32),
        both=_joined([found.users for found in nearest], np.int32),
        users=counting.users_of.astype(np.int32),
        popularity=_popularity(rows, popularity_half_life_days),
    )


def _joined(parts: list[NDArray[Any]], kind: DTypeLike) -> NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)


def _input_hash(rows: PositivePairs, *settings: float) -> str:
    found = hashlib.sha256(repr((MAX_STEPS, STRAY, settings)).encode())
    found.update("\n".join(rows.ids).encode())
    kinds = (np.int32, np.int32, np.float64, np.int64)
    arrays = (rows.users, rows.items, rows.weights, rows.timestamps)
    for array, kind in zip(arrays, kinds, strict=True):
        for chunk in _chunks(len(array)):
            found.update(np.ascontiguousarray(array[chunk], kind).data)
    return found.hexdigest()[:32]


class Pairs(NamedTuple):
    """The items that users had together with one item, ascending."""

    items: NDArray[np.int32]
    similar: NDArray[np.float32]
    users: NDArray[np.int32]  # who had both


class _Counting:
    """Pairs of one item at a time, whatever the size of the log."""

    def __init__(
        self, rows: PositivePairs, half_life_days: float, support: float, scratch: Path | None
    ) -> None:
        self._rows, self._half_life, self._support = rows, half_life_days, support
        self._user_starts = _starts(rows.users)
        self._users = int(np.count_nonzero(np.diff(self._user_starts, append=len(rows.users))))
        self.users_of = np.bincount(rows.items, minlength=len(rows.ids)).astype(np.int64)
        self._item_starts = np.concatenate([[0], np.cumsum(self.users_of)])
        self._places = _places(rows.items, self._item_starts, scratch)
        self._sizes = np.sqrt(_per_item(rows, lambda chunk: rows.weights[chunk] ** 2))

    def pairs_of(self, item: int) -> Pairs:
        """What users had together with the item."""
        places = self._places[self._item_starts[item] : self._item_starts[item + 1]]
        columns, together, users = self._summed(places.astype(np.int64))
        together = together / (self._sizes[item] * self._sizes[columns])
        chance = np.sqrt(self.users_of[item] * self.users_of[columns]) / self._users
        similar = (users * together + self._support * chance) / (users + self._support)
        return Pairs(columns.astype(np.int32), similar.astype(np.float32), users.astype(np.int32))

    def _summed(
        self, places: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """(items, decayed weights, users) of all pairs with the rows at `places`."""
        first, lengths = self._around(places)
        size, few = len(self._rows.ids), int(lengths.sum()) * _SPARSE < len(self._rows.ids)
        if few:
            others, weights = self._partners(places, first, lengths)
            columns, found = np.unique(others, return_inverse=True)
            users = np.bincount(found).astype(np.int64)
            together = np.bincount(found, weights).astype(np.float64)
            return columns.astype(np.int64), together, users
        together, users = np.zeros(size), np.zeros(size, np.int64)
        for part in _parts(lengths):
            others, weights = self._partners(places[part], first[part], lengths[part])
            together += np.bincount(others, weights, size)
            users += np.bincount(others, minlength=size)
        columns = np.flatnonzero(users).astype(np.int64)
        return columns, together[columns], users[columns]

    def _around(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(first row, number of rows) within MAX_STEPS of each place, of the same user."""
        users = self._rows.users[places]
        ends = np.append(self._user_starts, len(self._rows.users))[1:]
        first = np.maximum(places - MAX_STEPS, self._user_starts[users])
        return first, np.minimum(places + MAX_STEPS + 1, ends[users]) - first

    def _partners(
        self, places: NDArray[np.int64], first: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
        """(items, decayed weights) of every pair, without those of a row with itself."""
        begins = np.cumsum(lengths) - lengths
        other = np.arange(int(lengths.sum())) + np.repeat(first - begins, lengths)
        own = np.repeat(places, lengths)
        apart = other != own
        other, own = other[apart], own[apart]
        rows = self._rows
        days = np.abs(rows.timestamps[other] - rows.timestamps[own]) / _DAY_MS
        weights = rows.weights[own] * rows.weights[other] * np.exp2(-days / self._half_life)
        return rows.items[other], weights


def _starts(users: NDArray[np.integer]) -> NDArray[np.int64]:
    """Row at which each user begins."""
    count = int(users[-1]) + 1 if len(users) else 0
    return np.searchsorted(users, np.arange(count, dtype=users.dtype)).astype(np.int64)


def _places(
    items: NDArray[np.integer], starts: NDArray[np.int64], scratch: Path | None
) -> NDArray[np.int32]:
    """[rows] the rows of each item one after the other, ascending."""
    places = on_disk(len(items), np.int32, scratch)
    free = starts[:-1].copy()
    for chunk in _chunks(len(items)):
        order = np.argsort(items[chunk], kind="stable")
        grouped = items[chunk][order].astype(np.int64)
        counts = np.bincount(grouped, minlength=len(free))
        within = np.arange(len(grouped)) - (np.cumsum(counts) - counts)[grouped]
        places[free[grouped] + within] = chunk.start + order
        free += counts
    return places


def _parts(lengths: NDArray[np.int64]) -> Iterator[slice]:
    """Slices with at most _PAIRS_AT_ONCE pairs each, or one row."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, "right"))
        yield slice(start, max(stop, start + 1))
        start = max(stop, start + 1)


def _nearest(pairs: Pairs, neighbours: int) -> Pairs:
    """The best, best first; items ascend, so a stable sort leaves ties in order of item id."""
    order = np.argsort(-pairs.similar, kind="stable")[:neighbours]
    return Pairs(pairs.items[order], pairs.similar[order], pairs.users[order])


def _per_item(rows: PositivePairs, value: Callable[[slice], NDArray[Any]]) -> NDArray[np.float64]:
    """[items] Σ over the item's rows."""
    found = np.zeros(len(rows.ids))
    for chunk in _chunks(len(rows.items)):
        found += np.bincount(rows.items[chunk], value(chunk), minlength=len(rows.ids))
    return found


def _popularity(rows: PositivePairs, half_life_days: float) -> NDArray[np.float64]:
    now = reached(rows.users, rows.timestamps)

    def decayed(chunk: slice) -> NDArray[Any]:
        return rows.weights[chunk] * recency(rows.timestamps[chunk], now, half_life_days)

    return _per_item(rows, decayed)
