"""Which items go together: one immutable snapshot, stored as a file and swapped by a pointer.

cooccurrence_build.py makes snapshots; readers need nothing but numpy. A snapshot is derived from
the event log: a damaged one is named and passed over, and the indexer makes it anew.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from models.durable import replacing
from models.errors import SnapshotDamaged

KEPT_SNAPSHOTS: Final = 3  # a reader that has just read the pointer still finds its file
_POINTER: Final = "current"
_NAME: Final = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True, slots=True)
class Cooccurrence:
    """Nearest items per item, and how popular each is.

    Row i holds columns[indptr[i]:indptr[i+1]] with values in falling order.
    """

    id: str  # hash of the inputs
    ids: tuple[str, ...]  # ascending
    indptr: NDArray[np.int64]  # [items + 1]
    columns: NDArray[np.int32]  # [pairs], positions in ids
    values: NDArray[np.float32]  # [pairs], 0..1
    both: NDArray[np.int32]  # [pairs], users who had both
    users: NDArray[np.int32]  # [items], users who had it
    popularity: NDArray[np.float64]  # [items], weighted users, older ones counting less

    def flaw(self) -> str | None:
        """What is wrong with these arrays; None: they belong together."""
        items, pairs = len(self.ids), len(self.columns)
        if len(self.indptr) != items + 1 or self.indptr[0] != 0 or self.indptr[-1] != pairs:
            return "rows and pairs do not fit"
        if (np.diff(self.indptr) < 0).any():
            return "rows overlap"
        if {len(self.values), len(self.both)} != {pairs}:
            return "pairs lack values"
        if {len(self.users), len(self.popularity)} != {items}:
            return "items lack counts"
        if pairs and not (self.columns.min() >= 0 and self.columns.max() < items):
            return "a pair names an item that is not there"
        if not (np.isfinite(self.values).all() and np.isfinite(self.popularity).all()):
            return "a value is not a number"
        return None


def save_snapshot(snapshot: Cooccurrence, folder: Path) -> Path:
    """Write a snapshot and make it the current one; readers see the old or the new, whole.

    1. write the file under a temporary name, 2. rename it, also over one of the same name, which
    may be damaged, 3. move the pointer by a rename, 4. drop snapshots that no reader can still be
    opening.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _file(folder, snapshot.id)
    _write_arrays(snapshot, path)
    _write_pointer(folder, snapshot.id)
    _prune(folder, keep=path)
    return path


def _file(folder: Path, snapshot_id: str) -> Path:
    return folder / f"{snapshot_id}.npz"


def _write_arrays(snapshot: Cooccurrence, path: Path) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(
            file,
            ids=np.frombuffer(orjson.dumps(snapshot.ids), np.uint8),
            indptr=snapshot.indptr,
            columns=snapshot.columns,
            values=snapshot.values,
            both=snapshot.both,
            users=snapshot.users,
            popularity=snapshot.popularity,
        )


def _write_pointer(folder: Path, snapshot_id: str) -> None:
    with replacing(folder / _POINTER) as draft:
        draft.write_text(snapshot_id)


def _prune(folder: Path, keep: Path) -> None:
    for path in _newest_first(folder)[KEPT_SNAPSHOTS:]:
        if path != keep:
            path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)


def current_id(folder: Path) -> str | None:
    """Id of the current snapshot; None before the first, or if nothing there is an id."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        name = (folder / _POINTER).read_text()
        return name if _NAME.fullmatch(name) else None
    return None


Fingerprint = tuple[str, int, int]


def fingerprint(folder: Path) -> Fingerprint | None:
    """(id, size, time of writing in ns) of the current snapshot; another if it was made anew."""
    snapshot_id = current_id(folder)
    if snapshot_id is None:
        return None
    try:
        found = _file(folder, snapshot_id).stat()
    except FileNotFoundError:
        return snapshot_id, 0, 0
    return snapshot_id, found.st_size, found.st_mtime_ns


def load_current(folder: Path) -> Cooccurrence | None:
    """The current snapshot, or None before the first. Raises SnapshotDamaged if it is not whole."""
    snapshot_id = current_id(folder)
    return None if snapshot_id is None else _load(_file(folder, snapshot_id))


def load_newest_whole(
    folder: Path, on_damaged: Callable[[SnapshotDamaged], None]
) -> Cooccurrence | None:
    """The current snapshot, or in its place the newest that is whole; None if there is none."""
    for path in _candidates(folder):
        try:
            return _load(path)
        except SnapshotDamaged as damage:
            on_damaged(damage)
    return None


def _candidates(folder: Path) -> Iterator[Path]:
    snapshot_id = current_id(folder)
    current = None if snapshot_id is None else _file(folder, snapshot_id)
    if current is not None:
        yield current
    yield from (path for path in _newest_first(folder) if path != current)


def _load(path: Path) -> Cooccurrence:
    try:
        with np.load(path, allow_pickle=False) as stored:
            snapshot = _snapshot_of(path.stem, stored)
            flaw = snapshot.flaw()
    except Exception as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if flaw:
        raise _damaged(path, flaw)
    return snapshot


def _damaged(path: Path, why: str) -> SnapshotDamaged:
    return SnapshotDamaged(
        f"the co-occurrence snapshot {path} cannot be read ({why}); the indexer makes it anew from "
        "the event log (by hand: palate rebuild-index --cooccurrence-only)"
    )


def _snapshot_of(name: str, stored: Any) -> Cooccurrence:
    return Cooccurrence(
        id=name,
        ids=tuple(map(str, orjson.loads(stored["ids"].tobytes()))),
        indptr=stored["indptr"].astype(np.int64),
        columns=stored["columns"].astype(np.int32),
        values=stored["values"].astype(np.float32),
        both=stored["both"].astype(np.int32),
        users=stored["users"].astype(np.int32),
        popularity=stored["popularity"].astype(np.float64),
    )
