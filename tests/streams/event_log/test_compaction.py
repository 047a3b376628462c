from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import EventLogError
from streams.event_log import SegmentLog, compact
from streams.event_log.compaction import FAN_IN, FULL_ROWS, due
from streams.event_log.manifest import Manifest, Replaced, SegmentInfo
from tests.streams.event_log.rows import rows

TOPIC = "interactions"


def segments(counts: list[int]) -> tuple[SegmentInfo, ...]:
    found, start = [], 0
    for count in counts:
        found.append(SegmentInfo(f"{start}", start, start + count - 1, count, count * 100))
        start += count
    return tuple(found)


def compacted(found: tuple[SegmentInfo, ...], below: int) -> tuple[tuple[SegmentInfo, ...], int]:
    """(segments once nothing is due, rows moved)."""
    moved = 0
    while run := due(found, below):
        assert len(run) >= 2
        count = sum(segment.rows for segment in run)
        place = found.index(run[0])
        assert found[place : place + len(run)] == run
        size = sum(segment.bytes for segment in run)
        merged = SegmentInfo("m", run[0].first_offset, run[-1].last_offset, count, size)
        found = (*found[:place], merged, *found[place + len(run) :])
        moved += count
    return found, moved


@pytest.fixture
def log(tmp_path: Path) -> SegmentLog:
    log = SegmentLog(tmp_path)
    for start in range(0, 50, 10):
        log.append(TOPIC, 0, rows(range(start, start + 10)))
    return log


def files(log: SegmentLog) -> set[str]:
    return {path.name for path in log.partition_folder(TOPIC, 0).glob("*.parquet")}


def test_small_segments_become_one_with_the_same_rows(log: SegmentLog) -> None:
    before = list(log.rows(TOPIC, 0))
    assert compact(log, TOPIC, 0, below_rows=100) == 1
    assert len(log.segments(TOPIC, 0)) == 1
    assert list(log.rows(TOPIC, 0)) == before
    assert log.next_offset(TOPIC, 0) == 50


def test_replaced_files_stay_for_the_grace_period(log: SegmentLog) -> None:
    old = files(log)
    compact(log, TOPIC, 0, below_rows=100, grace_s=3600)
    assert old < files(log)
    compact(log, TOPIC, 0, below_rows=100, grace_s=-1)
    assert files(log) == {log.segments(TOPIC, 0)[0].file}


def test_the_grace_period_begins_when_a_file_is_replaced(log: SegmentLog) -> None:
    for path in log.partition_folder(TOPIC, 0).glob("*.parquet"):
        os.utime(path, (0, 0))
    old = files(log)
    compact(log, TOPIC, 0, below_rows=100, grace_s=3600)
    assert old < files(log)


def test_merging_leaves_the_segments_around_it_alone() -> None:
    before = segments([10] * 5)
    merged = SegmentInfo("m", 10, 29, 20, 2_000)
    after = Manifest(before).merged(before[1:3], merged, at=5.0)
    assert after.segments == (before[0], merged, *before[3:])
    assert after.replaced == (Replaced("10", 5.0), Replaced("20", 5.0))


def test_a_run_that_was_merged_meanwhile_is_not_merged_again() -> None:
    before = segments([10] * 5)
    merged = SegmentInfo("m", 10, 29, 20, 2_000)
    after = Manifest(before).merged(before[1:3], merged, at=5.0)
    with pytest.raises(EventLogError, match="replaced meanwhile"):
        after.merged(before[1:3], merged, at=6.0)


def test_a_merged_segment_has_few_row_groups(log: SegmentLog) -> None:
    compact(log, TOPIC, 0, below_rows=100)
    path = log.partition_folder(TOPIC, 0) / log.segments(TOPIC, 0)[0].file
    assert pq.ParquetFile(path).metadata.num_row_groups == 1


def test_segments_of_an_older_schema_get_the_columns_they_lack(log: SegmentLog) -> None:
    folder = log.partition_folder(TOPIC, 0)
    oldest = folder / log.segments(TOPIC, 0)[0].file
    pq.write_table(pq.read_table(oldest).drop_columns(["price", "position"]), oldest)
    (folder / "manifest.json").unlink()  # it is made again, with the size of that file
    compact(log, TOPIC, 0, below_rows=100)
    assert [found["price"] for found in log.rows(TOPIC, 0)] == [None] * 50


def test_nothing_is_due_in_an_empty_or_absent_log(tmp_path: Path) -> None:
    assert compact(SegmentLog(tmp_path), TOPIC, 0, below_rows=100) == 0


def test_full_segments_are_left_alone() -> None:
    assert due(segments([FULL_ROWS] * 20), 10_000) == ()


@given(st.lists(st.integers(1, 50_000), max_size=200), st.integers(1, 20_000))
def test_compaction_ends_with_few_segments_and_moves_rows_seldom(
    counts: list[int], below: int
) -> None:
    found, moved = compacted(segments(counts), below)
    total = sum(counts)
    assert sum(segment.rows for segment in found) == total
    assert not any(a.rows < below and b.rows < below for a, b in pairwise(found))
    assert moved <= 8 * total


@given(st.integers(1, 2_000))
def test_a_log_written_in_small_pieces_stays_short(pieces: int) -> None:
    found: tuple[SegmentInfo, ...] = ()
    moved = 0
    for _ in range(pieces // 10):  # ten segments of 100 rows between two compactions
        start = found[-1].last_offset + 1 if found else 0
        fresh = [
            SegmentInfo("s", start + n * 100, start + n * 100 + 99, 100, 10_000) for n in range(10)
        ]
        found, more = compacted((*found, *fresh), 10_000)
        moved += more
    total = sum(segment.rows for segment in found)
    assert len(found) <= 3 * FAN_IN
    assert moved <= 12 * total
