"""The event log and the tracker's state are read as files and bytes, damaged or not."""

from __future__ import annotations

from pathlib import Path

from streams.event_log import SegmentLog
from streams.tracker.state import User, store
from streams.windows import HistoryEntry
from tests.faults.evidence import logged_offsets, logged_values, states
from tests.streams.event_log.rows import row


def a_log(folder: Path) -> Path:
    log = SegmentLog(folder)
    for offsets in ((0, 1), (2, 3)):
        log.append("interactions", 0, [row(offset) for offset in offsets])
    return folder / "interactions" / "0"


def test_offsets_are_those_of_the_segments_that_the_manifest_names(tmp_path: Path) -> None:
    partition = a_log(tmp_path)
    (partition / "stray.parquet").write_bytes(b"no segment")
    assert logged_offsets(tmp_path) == {("interactions", 0): [0, 1, 2, 3]}
    assert list(logged_values(tmp_path, "interactions")["interactions", 0]) == [0, 1, 2, 3]


def test_a_damaged_segment_and_one_that_is_gone_have_no_rows(tmp_path: Path) -> None:
    first, second = sorted(a_log(tmp_path).glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:40])
    assert logged_offsets(tmp_path) == {("interactions", 0): [2, 3]}
    second.unlink()
    assert logged_offsets(tmp_path) == {("interactions", 0): []}


def test_a_partition_without_a_manifest_has_no_rows(tmp_path: Path) -> None:
    (a_log(tmp_path) / "manifest.json").unlink()
    assert logged_offsets(tmp_path) == {("interactions", 0): []}


def test_a_state_is_read_from_the_records_of_the_changelog() -> None:
    user = User("ada", history=tuple(HistoryEntry(n, f"e{n}", "tea", 1, n) for n in range(40)))
    user.head.applied = 39
    records = {key: value for key, value in store(user, [e.key for e in user.history]) if value}
    found = states({2: records})["ada"]
    assert [entry[:4] for entry in found.held] == [(n, f"e{n}", "tea", "view") for n in range(40)]
    assert (found.applied, found.edited) == (39, -1)
