"""The event log and the tracker's state, as files and bytes say them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from streams.tracker.state import HEAD, load
from tests.faults.checker import Place, State
from tests.faults.oracle import CAP

TRIES = 20  # compaction may take a file away between the manifest and the file


def logged_offsets(log_dir: Path) -> dict[Place, list[int]]:
    """All offsets that the manifests' segments hold, by topic and partition."""
    found: dict[Place, list[int]] = {}
    for folder in sorted(log_dir.glob("*/*/")):
        if (folder / "manifest.json").exists():
            place = folder.parent.name, int(folder.name)
            found[place] = [offset for (offset,) in _rows(folder, ("offset",))]
    return found


def logged_values(log_dir: Path, topic: str) -> dict[Place, dict[int, bytes | None]]:
    """Offset → value of every row of a topic."""
    return {
        (topic, int(folder.name)): dict(_rows(folder, ("offset", "value")))
        for folder in sorted(log_dir.glob(f"{topic}/*/"))
    }


def _rows(folder: Path, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    for left in reversed(range(TRIES)):
        try:
            return list(_read(folder, columns))
        except FileNotFoundError:
            if not left:
                raise
            time.sleep(0.1)
    return []


def _read(folder: Path, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for segment in manifest["segments"]:
        table = pq.read_table(folder / segment["file"], columns=list(columns))
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
