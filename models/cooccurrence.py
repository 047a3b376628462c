"""Which items go together: one immutable snapshot, stored as a file and swapped by a pointer.

models/cooccurrence_build.py makes snapshots; readers need nothing but numpy.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from models.durable import replacing

KEPT_SNAPSHOTS: Final = 3  # a reader that has just read the pointer still finds its file
_POINTER: Final = "current"


@dataclass(frozen=True, slots=True)
class Cooccurrence:
    """Nearest items per item, and how popular each is.

    Row i holds columns[indptr[i]:indptr[i+1]] with values in falling order.
    """

    id: str  # hash of the inputs
    ids: tuple[str, ...]  # ascending
    indptr: NDArray[np.int64]  # [items + 1]
    columns: NDArray[np.int32]  # [pairs], positions in ids
    values: NDArray[np.float32]  # [pairs], cosine in 0..1
    popularity: NDArray[np.float64]  # [items], weighted users, older ones counting less

    def nearest(self, item_id: str) -> list[tuple[str, float]]:
        """(item, cosine) pairs of one item, best first; empty if it is unknown."""
        place = _find(self.ids, item_id)
        if place is None:
            return []
        row = slice(self.indptr[place], self.indptr[place + 1])
        pairs = zip(self.columns[row], self.values[row], strict=True)
        return [(self.ids[column], float(value)) for column, value in pairs]


def _find(ids: tuple[str, ...], item_id: str) -> int | None:
    place = bisect_left(ids, item_id)
    return place if place < len(ids) and ids[place] == item_id else None


def save_snapshot(snapshot: Cooccurrence, folder: Path) -> Path:
    """Write a snapshot and make it the current one; readers see the old or the new, whole.

    1. write the file under a temporary name, 2. rename it, 3. move the pointer by a rename,
    4. drop snapshots that no reader can still be opening.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{snapshot.id}.npz"
    if not path.exists():
        _write_arrays(snapshot, path)
    _write_pointer(folder, snapshot.id)
    _prune(folder, keep=path)
    return path


def _write_arrays(snapshot: Cooccurrence, path: Path) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(
            file,
            ids=np.frombuffer(orjson.dumps(snapshot.ids), np.uint8),
            indptr=snapshot.indptr,
            columns=snapshot.columns,
            values=snapshot.values,
            popularity=snapshot.popularity,
        )


def _write_pointer(folder: Path, snapshot_id: str) -> None:
    with replacing(folder / _POINTER) as draft:
        draft.write_text(snapshot_id)


def _prune(folder: Path, keep: Path) -> None:
    newest = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest[KEPT_SNAPSHOTS:]:
        if path != keep:
            path.unlink(missing_ok=True)


def current_id(folder: Path) -> str | None:
    """Id of the current snapshot, or None before the first."""
    with contextlib.suppress(FileNotFoundError):  # nothing has been counted yet
        return (folder / _POINTER).read_text()
    return None


def load_current(folder: Path) -> Cooccurrence | None:
    """The current snapshot, or None before the first."""
    snapshot_id = current_id(folder)
    if snapshot_id is None:
        return None
    with np.load(folder / f"{snapshot_id}.npz", allow_pickle=False) as stored:
        return Cooccurrence(
            id=snapshot_id,
            ids=tuple(orjson.loads(stored["ids"].tobytes())),
            indptr=stored["indptr"],
            columns=stored["columns"],
            values=stored["values"],
            popularity=stored["popularity"],
        )
