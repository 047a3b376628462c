"""Interactions in order of offset → what was known of a user before each of them.

The states are those of the tracker's `advance`; users are independent of each other, so a
partition is replayed user by user, and what is in memory is the partition's columns and one
chunk of users. `advance` keeps the newest `cap` distinct events whatever their order of arrival,
so a history is needed, and sorted, only where a session opens. Where an event id came again with
another time, that shortcut does not hold and the user is folded event by event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.schemas import InteractionType
from models.settings import WindowSettings
from models.text import clean
from streams.windows import EMPTY, REVIEW_CHARS, History, HistoryEntry, advance
from trainer.data.sources import InteractionSource, only_kept

CHUNK_ROWS: Final = 100_000  # rows turned into objects at once, unless one user has more
_CODES: Final = {kind.value: code for code, kind in enumerate(InteractionType)}
_key: Final = attrgetter("timestamp", "event_id")


@dataclass(frozen=True, slots=True)
class UserLog:
    """One user's distinct interactions in order of offset."""

    user_id: str
    partition: int
    entries: tuple[HistoryEntry, ...]
    folded: tuple[History, ...] | None  # before each entry, where events had to be folded

    def before(self, place: int, cap: int) -> History:
        """The tracker's history when `entries[place]` arrived."""
        if self.folded is not None:
            return self.folded[place]
        return tuple(sorted(self.entries[:place], key=_key)[-cap:])

    def applied_before(self, place: int, cap: int) -> int:
        """Offset of the last interaction that had changed that history; -1 if none had."""
        while place > 0:
            entry = self.entries[place - 1]
            if place <= cap or self.folded is not None or entry in self.before(place, cap):
                return entry.offset
            place -= 1  # it was older than a full history
        return -1


def replay_users(source: InteractionSource, spec: WindowSettings) -> Iterator[UserLog]:
    """Every user with interactions that enter histories, partition by partition.

    Users come in order of their first interaction in the partition.
    """
    for partition in source.partitions():
        table = only_kept(source.interactions(partition), spec)
        for chunk in _chunks_of_users(table):
            yield from _user_logs(chunk, partition, spec.history_cap)


def _chunks_of_users(table: pa.Table) -> Iterator[pa.Table]:
    """The rows grouped by user, each user's in order of offset, whole users at a time."""
    if not table.num_rows:
        return
    users = table.column("user_id").combine_chunks().dictionary_encode()
    codes = users.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))
    start = 0
    while start < len(order):
        nearest = np.searchsorted(ends, start + CHUNK_ROWS, "right") - 1
        stop = int(ends[nearest]) if nearest >= 0 else 0
        if stop <= start:  # one user has more rows than a chunk
            stop = int(ends[np.searchsorted(ends, start, "right")])
        yield table.take(pa.array(order[start:stop]))
        start = stop


def _user_logs(chunk: pa.Table, partition: int, cap: int) -> Iterator[UserLog]:
    users = chunk.column("user_id").to_pylist()
    entries = _entries(chunk)
    for start, stop in _runs(chunk):
        yield _user_log(users[start], partition, entries[start:stop], cap)


def _runs(chunk: pa.Table) -> Iterator[tuple[int, int]]:
    codes = chunk.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy()
    edges: NDArray[np.intp] = np.flatnonzero(np.diff(codes)) + 1
    bounds = [0, *edges.tolist(), len(codes)]
    yield from pairwise(bounds)


def _entries(chunk: pa.Table) -> list[HistoryEntry]:
    """As `streams.windows.entry_of` makes them, from columns."""
    return list(
        map(
            HistoryEntry,
            chunk.column("timestamp").to_pylist(),
            chunk.column("event_id").to_pylist(),
            _shared(chunk.column("item_id")),
            [_CODES[name] for name in _shared(chunk.column("type"))],
            chunk.column("offset").to_pylist(),
            chunk.column("rating").to_pylist(),
            chunk.column("quantity").to_pylist(),
            [review and clean(review, REVIEW_CHARS) for review in _shared(chunk.column("review"))],
            chunk.column("recommendation_id").to_pylist(),
        )
    )


def _shared(column: pa.ChunkedArray) -> list[str]:
    """The column's texts, equal ones as one object: histories repeat item ids."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    texts = encoded.dictionary.to_pylist()
    return [texts[code] for code in encoded.indices.to_pylist()]


def _user_log(user_id: str, partition: int, entries: Sequence[HistoryEntry], cap: int) -> UserLog:
    first: dict[str, HistoryEntry] = {}
    for entry in entries:
        known = first.setdefault(entry.event_id, entry)
        if known.timestamp != entry.timestamp:
            return _folded(user_id, partition, entries, cap)
    return UserLog(user_id, partition, tuple(first.values()), None)


def _folded(user_id: str, partition: int, entries: Sequence[HistoryEntry], cap: int) -> UserLog:
    history, applied, before = EMPTY, [], []
    for entry in entries:
        after = advance(history, entry, cap)
        if after is not history:
            applied.append(entry)
            before.append(history)
        history = after
    return UserLog(user_id, partition, tuple(applied), tuple(before))
