"""A co-occurrence snapshot translated to the row numbers of one catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ranking.catalogue import Catalogue
from models.ranking.cooccurrence import Cooccurrence

Rows = NDArray[np.int64]  # row numbers of a catalogue
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Nearest items per item, and popularity, by catalogue row."""

    id: str | None  # of the snapshot; None before the first
    row_of: Mapping[str, int]  # item id → row of indptr; items need not be in the catalogue
    indptr: Rows  # [snapshot items + 1]
    columns: Rows  # [pairs], catalogue rows
    values: Scores  # [pairs]
    both: Rows  # [pairs], users who had both
    users: Rows  # [snapshot items], users who had it
    popularity: Scores  # [catalogue], 0..1
    chosen_by: Rows  # [catalogue], users who had the item

    def of(self, item_id: str) -> tuple[Rows, Scores]:
        """(catalogue rows, co-occurrence) of the nearest items; empty for an unknown item."""
        row = self.row_of.get(item_id)
        if row is None:
            return np.empty(0, np.int64), np.empty(0)
        cells = slice(self.indptr[row], self.indptr[row + 1])
        return self.columns[cells], self.values[cells]

    def support(self, item_id: str, neighbour: int) -> tuple[int, int]:
        """(users who had both, users who had the item) of an item and a catalogue row near it."""
        row = self.row_of.get(item_id)
        if row is None:
            return 0, 0
        cells = slice(self.indptr[row], self.indptr[row + 1])
        both = self.both[cells][self.columns[cells] == neighbour]
        return int(both.sum()), int(self.users[row])


def align(snapshot: Cooccurrence | None, catalogue: Catalogue) -> Neighbours:
    """Translate a snapshot to a catalogue; to be repeated when either of them changes."""
    counts, users = np.zeros(len(catalogue)), np.zeros(len(catalogue), np.int64)
    if snapshot is None:
        none, starts = np.empty(0, np.int64), np.zeros(1, np.int64)
        return Neighbours(None, {}, starts, none, np.empty(0), none, none, counts, users)
    place = np.array([catalogue.row_of.get(item, -1) for item in snapshot.ids], np.int64)
    counts[place[place >= 0]] = snapshot.popularity[place >= 0]
    users[place[place >= 0]] = snapshot.users[place >= 0]
    columns = place[snapshot.columns]
    kept = columns >= 0
    return Neighbours(
        id=snapshot.id,
        row_of={item: row for row, item in enumerate(snapshot.ids)},
        indptr=np.concatenate([[0], np.cumsum(kept)])[snapshot.indptr],
        columns=columns[kept],
        values=snapshot.values[kept].astype(np.float64),
        both=snapshot.both[kept].astype(np.int64),
        users=snapshot.users.astype(np.int64),
        popularity=_relative(counts),
        chosen_by=users,
    )


def _relative(counts: Scores) -> Scores:
    """log(1 + count) over that of the most popular item."""
    largest = counts.max(initial=0.0)
    return np.log1p(counts) / np.log1p(largest) if largest > 0 else counts
