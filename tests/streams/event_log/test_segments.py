from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import EventLogError
from streams.event_log import SegmentLog, compact
from streams.event_log.columns import SCHEMAS
from streams.event_log.manifest import FILE_NAME
from tests.streams.event_log.rows import invalid_row, row, rows

TOPIC = "interactions"


@pytest.fixture
def log(tmp_path: Path) -> SegmentLog:
    return SegmentLog(tmp_path)


def offsets(log: SegmentLog, first: int = 0, last: int | None = None) -> list[int]:
    return [found["offset"] for found in log.rows(TOPIC, 0, first, last, ["offset"])]


def table(chosen: range) -> pa.Table:
    return pa.Table.from_pylist(rows(chosen), schema=SCHEMAS[TOPIC])


def test_rows_come_back_as_they_were_written(log: SegmentLog) -> None:
    log.append(TOPIC, 0, [row(0, rating=4.5, review="good"), invalid_row(1, b"\x00\xff")])
    first, second = log.rows(TOPIC, 0)
    assert first == dict.fromkeys(SCHEMAS[TOPIC].names) | row(0, rating=4.5, review="good")
    assert (second["value"], second["reason"], second["user_id"]) == (b"\x00\xff", "not_json", None)


def test_an_empty_log_begins_at_offset_0(log: SegmentLog) -> None:
    assert (log.next_offset(TOPIC, 0), log.partitions(TOPIC), log.segments(TOPIC, 0)) == (0, [], [])
    assert offsets(log) == []


def test_each_append_is_one_segment_and_an_empty_one_is_none(log: SegmentLog) -> None:
    for appended in ([0, 1, 5], [], [9]):
        log.append(TOPIC, 0, rows(appended))
    found = [(part.first_offset, part.last_offset, part.rows) for part in log.segments(TOPIC, 0)]
    assert found == [(0, 5, 3), (9, 9, 1)]


def test_next_offset_follows_the_last_row(log: SegmentLog) -> None:
    log.append(TOPIC, 0, rows([3, 4, 9]))
    assert log.next_offset(TOPIC, 0) == 10


def test_an_offset_that_is_logged_is_refused(log: SegmentLog) -> None:
    log.append(TOPIC, 0, rows(range(10)))
    with pytest.raises(EventLogError, match="offset 9 is in the log already"):
        log.append(TOPIC, 0, rows([9, 10]))
    assert offsets(log) == list(range(10))


def test_rows_out_of_order_are_refused(log: SegmentLog) -> None:
    with pytest.raises(EventLogError, match="ascending"):
        log.append(TOPIC, 0, rows([1, 1]))
    assert log.segments(TOPIC, 0) == []


def test_the_second_of_two_writers_adds_only_what_is_missing(log: SegmentLog) -> None:
    log.append_from(TOPIC, 0, 0, table(range(10)))
    segment = log.append_from(TOPIC, 0, 5, table(range(5, 15)))
    assert segment is not None
    assert (segment.first_offset, segment.rows) == (10, 5)
    assert log.append_from(TOPIC, 0, 0, table(range(12))) is None
    assert offsets(log) == list(range(15))


def test_a_writer_that_would_leave_a_hole_is_refused(log: SegmentLog) -> None:
    log.append_from(TOPIC, 0, 0, table(range(10)))
    with pytest.raises(EventLogError, match="ends before offset 10"):
        log.append_from(TOPIC, 0, 11, table(range(11, 20)))


def test_offsets_that_the_topic_itself_lacks_are_no_hole(log: SegmentLog) -> None:
    log.append_from(TOPIC, 0, 0, table(range(3)))
    log.append_from(TOPIC, 0, 3, table(range(7, 9)))
    assert offsets(log) == [0, 1, 2, 7, 8]


def test_writers_at_once_log_each_offset_once(log: SegmentLog) -> None:
    def record() -> None:
        for start in range(0, 100, 10):
            log.append_from(TOPIC, 0, start, table(range(start, start + 10)))

    writers = [threading.Thread(target=record) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert offsets(log) == list(range(100))


def test_partitions_are_those_with_a_manifest(log: SegmentLog) -> None:
    log.append(TOPIC, 2, [row(0, partition=2)])
    log.append(TOPIC, 10, [row(0, partition=10)])
    log.append("profiles", 4, [{"offset": 0, "partition": 4, "status": "tombstone"}])
    log.partition_folder(TOPIC, 5).mkdir()
    assert log.partitions(TOPIC) == [2, 10]
    assert log.partitions("profiles") == [4]


@given(
    st.lists(st.sets(st.integers(0, 60), min_size=1), min_size=1, max_size=6),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_a_range_gives_its_rows_once_whatever_the_segments(
    tmp_path_factory: pytest.TempPathFactory, batches: list[set[int]], first: int, last: int
) -> None:
    log = SegmentLog(tmp_path_factory.mktemp("log"))
    written: list[int] = []
    for batch in batches:
        fresh = sorted(offset for offset in batch if offset >= log.next_offset(TOPIC, 0))
        log.append(TOPIC, 0, rows(fresh))
        written += fresh
    assert offsets(log, first, last) == [o for o in written if first <= o <= last]


def test_reading_goes_on_when_compaction_deletes_segments_meanwhile(log: SegmentLog) -> None:
    for start in range(0, 50, 10):
        log.append(TOPIC, 0, rows(range(start, start + 10)))
    reading = log.rows(TOPIC, 0)
    seen = [next(reading)["offset"] for _ in range(15)]
    compact(log, TOPIC, 0, below_rows=100, grace_s=-1)
    assert len(list(log.partition_folder(TOPIC, 0).glob("*.parquet"))) == 1
    seen += [found["offset"] for found in reading]
    assert seen == list(range(50))


def test_a_segment_that_is_lost_is_an_error(log: SegmentLog) -> None:
    log.append(TOPIC, 0, rows(range(10)))
    next(log.partition_folder(TOPIC, 0).glob("*.parquet")).unlink()
    with pytest.raises(EventLogError, match=r"offsets 0\.\.9\) cannot be read: the file is gone"):
        offsets(log)


def test_a_manifest_of_a_newer_palate_is_refused(log: SegmentLog) -> None:
    log.append(TOPIC, 0, rows(range(10)))
    (log.partition_folder(TOPIC, 0) / FILE_NAME).write_bytes(b'{"version": 99}')
    with pytest.raises(EventLogError, match="version 99"):
        log.next_offset(TOPIC, 0)


def test_values_of_two_megabytes_survive(log: SegmentLog) -> None:
    log.append(TOPIC, 0, [invalid_row(0, b"x" * 2_000_000)])
    assert len(next(log.rows(TOPIC, 0))["value"]) == 2_000_000
