"""What of a hole is read again, and what is known to be lost; on a real broker."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from models.errors import EventLogError
from streams.event_log import SegmentLog
from streams.event_log.manifest import Missing
from streams.event_log.repair import repair
from streams.kafka import deliver, producer
from streams.metrics import RecorderMetrics
from streams.recorder.backfill import Backfill, expired_before
from streams.recorder.rows import Buffer, Judge
from streams.topics import ensure_topics
from tests.records import records


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 50), st.integers(1, 21))
def test_a_hole_is_parted_where_kafka_begins(first, length, beginning, rows):
    hole = Missing(first, first + length, min(rows, length + 1), "f")
    parts = expired_before(hole, max(beginning, first + 1))
    covered = [o for part in parts for o in range(part.first_offset, part.last_offset + 1)]
    assert covered == list(range(first, first + length + 1))
    assert all(part.expired == (part.last_offset < max(beginning, first + 1)) for part in parts)
    assert sum(part.rows for part in parts) >= hole.rows


COUNT = 30


@pytest.fixture
def settings(kafka, make_settings):
    made = make_settings(kafka={"partitions": 1}, log={"rows": 4})
    asyncio.run(fill_topic(made))
    return made


async def fill_topic(settings):
    await ensure_topics(settings)
    async with producer(settings) as sender:
        for number in range(COUNT):
            await deliver(sender, settings.topic("interactions"), b"%d" % number, key=b"u")


def damaged_log(settings, first, last):
    """The whole topic is logged; the segment with offsets first..last is gone."""
    log, judge = SegmentLog(settings.log_dir), Judge.of(settings)
    found = sorted(records(settings, "interactions"), key=lambda record: record.offset)
    for begin, end in ((0, first), (first, last + 1), (last + 1, COUNT)):
        buffer = Buffer("interactions", 0, begin)
        for record in found[begin:end]:
            buffer.add(record, judge, 0.0)
        log.append_from("interactions", 0, begin, buffer.table(), "id")
    folder = log.partition_folder("interactions", 0)
    before = list(log.rows("interactions", 0))
    (folder / log.segments("interactions", 0)[1].file).unlink()
    repair(folder)
    return log, before


async def filled(settings, log):
    backfill = Backfill(settings, log, RecorderMetrics(CollectorRegistry()))
    try:
        await backfill.fill("interactions", 0)
    finally:
        await backfill.stop()


@pytest.mark.service
def test_what_kafka_still_has_is_logged_as_it_was(settings):
    log, before = damaged_log(settings, 10, 20)
    with pytest.raises(EventLogError):
        list(log.rows("interactions", 0))
    asyncio.run(filled(settings, log))
    assert list(log.rows("interactions", 0)) == before
    assert log.manifest("interactions", 0).missing == ()


@pytest.mark.service
def test_a_record_is_found_at_its_offset_again(settings):
    log, before = damaged_log(settings, 10, 20)

    async def looked_up():
        backfill = Backfill(settings, log, RecorderMetrics(CollectorRegistry()))
        try:
            return await backfill.record_at("interactions", 0, 7)
        finally:
            await backfill.stop()

    logged = tuple(before[7][name] for name in ("kafka_time", "key", "size"))
    assert asyncio.run(looked_up()) == logged
