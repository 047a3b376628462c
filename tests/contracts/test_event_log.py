"""One suite for the port EventLog: Parquet segments and the shipped fake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from models.errors import EventLogError
from models.fakes import MemoryLog
from models.ports import EventLog
from streams.event_log import SegmentLog
from tests.streams.event_log.rows import row, rows

TOPIC = "interactions"


@pytest.fixture(params=["segments", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> EventLog:
    return SegmentLog(tmp_path / "log") if request.param == "segments" else MemoryLog()


def offsets(log: EventLog, first: int = 0, last: int | None = None) -> list[int]:
    return [found["offset"] for found in log.rows(TOPIC, 0, first, last, ["offset"])]


def test_an_empty_log_begins_at_offset_0(log: EventLog) -> None:
    assert (log.next_offset(TOPIC, 0), log.partitions(TOPIC), log.segments(TOPIC, 0)) == (0, [], [])
    assert offsets(log) == []


def test_what_is_appended_is_read_in_order(log: EventLog) -> None:
    log.append(TOPIC, 0, rows([0, 1, 5]))
    log.append(TOPIC, 0, rows([6]))
    assert offsets(log) == [0, 1, 5, 6]
    assert offsets(log, 1, 5) == [1, 5]
    assert offsets(log, 2) == [5, 6]
    assert log.next_offset(TOPIC, 0) == 7


def test_rows_keep_their_values(log: EventLog) -> None:
    log.append(TOPIC, 0, [row(0, rating=2.5)])
    (found,) = log.rows(TOPIC, 0)
    assert {name: found[name] for name in row(0)} == row(0, rating=2.5)


def test_each_append_is_one_segment(log: EventLog) -> None:
    log.append(TOPIC, 0, rows([0, 1, 5]))
    log.append(TOPIC, 0, rows([9]))
    found = [(part.first_offset, part.last_offset, part.rows) for part in log.segments(TOPIC, 0)]
    assert found == [(0, 5, 3), (9, 9, 1)]


def test_appending_nothing_makes_no_segment(log: EventLog) -> None:
    log.append(TOPIC, 0, [])
    assert log.segments(TOPIC, 0) == []


@pytest.mark.parametrize("again", [[4, 6], [0], [7, 7], [8, 6]])
def test_an_offset_is_never_logged_twice_or_out_of_order(
    log: EventLog, again: Sequence[int]
) -> None:
    log.append(TOPIC, 0, rows(range(6)))
    with pytest.raises(EventLogError):
        log.append(TOPIC, 0, rows(again))
    assert offsets(log) == list(range(6))


def test_partitions_and_topics_are_apart(log: EventLog) -> None:
    log.append(TOPIC, 1, [row(3, partition=1)])
    log.append(TOPIC, 0, rows([0]))
    log.append("profiles", 4, [{"offset": 0, "partition": 4, "status": "tombstone"}])
    assert (log.partitions(TOPIC), log.partitions("profiles")) == ([0, 1], [4])
    assert (log.next_offset(TOPIC, 0), log.next_offset(TOPIC, 1)) == (1, 4)
