"""The items of one release in memory: ids, vectors and short texts, immutable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.errors import VectorIndexError
from models.ports import VectorRow, Vectors

GRID: Final = 2048.0
"""Vectors are rounded to multiples of 1/2048. Products of two such numbers are multiples of
2⁻²², and all partial sums of a dot product of unit vectors stay below 2, so float32 holds every
one of them exactly: a score is the same in a batch of any size and on any machine. The rounding
moves a cosine by about 0.0001."""


def on_grid(vectors: NDArray[np.floating]) -> Vectors:
    """Rounded to multiples of 1/GRID."""
    return (np.rint(np.asarray(vectors, np.float64) * GRID) / GRID).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Items in ascending order of id, so that ties by row are ties by item id."""

    ids: tuple[str, ...]
    matrix: Vectors  # [items, dimension], unit rows on the grid
    available: NDArray[np.bool_]  # [items]; False: known, but not recommended
    labels: tuple[str, ...]  # short readable texts
    row_of: Mapping[str, int]
    sequence: int = -1  # of the newest row seen; ask the index for what is newer

    @staticmethod
    def empty() -> Catalogue:
        """No items yet."""
        return Catalogue((), np.empty((0, 0), np.float32), np.empty(0, bool), (), {})

    @staticmethod
    def of(rows: Sequence[VectorRow]) -> Catalogue:
        """A catalogue of these rows."""
        return Catalogue.empty().updated(rows)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """Length of a vector; 0 while there are no items."""
        return self.matrix.shape[1]

    def updated(self, rows: Sequence[VectorRow], removed: Sequence[str] = ()) -> Catalogue:
        """With `rows` inserted or replaced, and `removed` and rows marked removed left out.

        Raises VectorIndexError when a row has another dimension.
        """
        if not rows and not removed:
            return self
        newest = {row.id: row for row in rows}
        fresh = [row for row in newest.values() if not row.attributes.get("removed")]
        gone = newest.keys() | set(removed)
        kept = [row for item_id, row in self.row_of.items() if item_id not in gone]
        sequence = max([self.sequence, *(row.sequence for row in rows)])
        return self._joined(np.array(kept, np.int64), fresh, sequence)

    def _joined(
        self, kept: NDArray[np.int64], fresh: Sequence[VectorRow], sequence: int
    ) -> Catalogue:
        ids = [self.ids[row] for row in kept] + [row.id for row in fresh]
        order = sorted(range(len(ids)), key=ids.__getitem__)
        labels = [self.labels[row] for row in kept] + [_label(row) for row in fresh]
        available = np.concatenate([self.available[kept], _availability(fresh)])
        ordered = tuple(ids[place] for place in order)
        return Catalogue(
            ids=ordered,
            matrix=_stack(self.matrix[kept], fresh)[order],
            available=available[order],
            labels=tuple(labels[place] for place in order),
            row_of={item_id: row for row, item_id in enumerate(ordered)},
            sequence=sequence,
        )


def _label(row: VectorRow) -> str:
    return str(row.attributes.get("label") or row.text)


def _availability(rows: Sequence[VectorRow]) -> NDArray[np.bool_]:
    return np.array([bool(row.attributes.get("available", True)) for row in rows], bool)


def _stack(kept: Vectors, fresh: Sequence[VectorRow]) -> Vectors:
    if not fresh:
        return kept
    added = on_grid(np.stack([row.vector for row in fresh]))
    if not len(kept):
        return added
    if kept.shape[1] != added.shape[1]:
        raise VectorIndexError(
            f"item vectors of {added.shape[1]} dimensions among vectors of {kept.shape[1]}: "
            "rows of two releases are mixed; rebuild the index"
        )
    return np.concatenate([kept, added])
