"""The event log and the tracker's state, as files and bytes say them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streams.tracker.state import HEAD, load
from tests.faults.checker import Place, State
from tests.faults.oracle import CAP

TRIES = 10  # 0.1 s apart


def logged_offsets(log_dir: Path) -> dict[Place, list[int]]:
    """All offsets that the manifests' segments hold, by topic and partition."""
    return {
        (folder.parent.name, int(folder.name)): [offset for (offset,) in _rows(folder, ("offset",))]
        for folder in sorted(log_dir.glob("*/*/"))
        if folder.name.isdigit()
    }


def logged_values(log_dir: Path, topic: str) -> dict[Place, dict[int, bytes | None]]:
    """Offset → value of every row of a topic."""
    return {
        (topic, int(folder.name)): dict(_rows(folder, ("offset", "value")))
        for folder in sorted(log_dir.glob(f"{topic}/*/"))
    }


def _rows(folder: Path, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """What can be read; compaction may take a file away between the manifest and the file."""
    for _ in range(TRIES):
        try:
            return list(_read(folder, columns))
        except FileNotFoundError:
            time.sleep(0.1)
    return list(_read(folder, columns, missing=True))


def _read(
    folder: Path, columns: tuple[str, ...], missing: bool = False
) -> Iterator[tuple[Any, ...]]:
    """A damaged segment has no rows; neither has one that is `missing` for good."""
    manifest = folder / "manifest.json"
    if missing and not manifest.exists():
        return
    for segment in json.loads(manifest.read_bytes())["segments"]:
        try:
            table = pq.read_table(folder / segment["file"], columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError) and not missing:
                raise
            continue
        yield from zip(*(table.column(name).to_pylist() for name in columns), strict=True)


def states(changelog: Mapping[int, Mapping[bytes, bytes]]) -> dict[str, State]:
    """User → state, by the records of the tracker's changelog."""
    found = {}
    for records in changelog.values():
        for key in [key for key in records if key.startswith(HEAD)]:
            user = key[1:].decode(errors="replace")
            found[user] = _state(user, records)
    return found


def _state(user: str, records: Mapping[bytes, bytes]) -> State:
    loaded = load(user, records.get, CAP)
    head = loaded.head
    return State(
        held=[
            (one.timestamp, one.event_id, one.item_id, one.type.value, one.offset)
            for one in loaded.history
        ],
        applied=head.applied,
        edited=head.edits,
        pinned=head.pinned,
        forbidden=head.forbidden,
        replaced=dict(head.replaced),
    )
