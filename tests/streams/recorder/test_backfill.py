"""What of a hole is read again, and what is known to be lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from models.errors import EventLogError
from models.schemas import Interaction, Item
from models.settings import Settings
from streams.event_log import SegmentLog
from streams.event_log.manifest import Missing
from streams.event_log.repair import repair
from streams.kafka.clients import deliver, producer
from streams.kafka.topics import ensure_topics
from streams.metrics import RecorderMetrics
from streams.recorder.backfill import Backfill, expired_before
from streams.recorder.rows import Buffer, RecordClassifier
from tests.records import records
from tests.streams.logged import record_of


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 50), st.integers(1, 21))
def test_a_hole_is_parted_where_kafka_begins(first, length, beginning, rows):
    hole = Missing(first, first + length, min(rows, length + 1), "f")
    parts = expired_before(hole, max(beginning, first + 1))
    covered = [o for part in parts for o in range(part.first_offset, part.last_offset + 1)]
    assert covered == list(range(first, first + length + 1))
    assert all(part.expired == (part.last_offset < max(beginning, first + 1)) for part in parts)
    assert sum(part.rows for part in parts) >= hole.rows


COUNT = 30


class APartition:
    """What Kafka holds of one partition, in place of a `Rereader` and of its consumer."""

    def __init__(self, found: list[Any], beginning: int) -> None:
        self.held = [record for record in found if record.offset >= beginning]
        self.beginning = beginning
        self.next = 0

    async def at(self, _place: object, offset: int) -> APartition:
        self.next = offset
        return self

    def seek(self, _place: object, offset: int) -> None:
        self.next = max(offset, self.beginning)

    async def beginning_offsets(self, places: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(places, self.beginning)

    async def end_offsets(self, places: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(places, COUNT)

    async def position(self, _place: object) -> int:
        return self.next

    async def getmany(self, place: Any, max_records: int, **_: Any) -> dict[Any, list[Any]]:
        batch = [one for one in self.held if one.offset >= self.next][: min(3, max_records)]
        self.next = batch[-1].offset + 1 if batch else COUNT
        return {place: batch}

    async def stop(self) -> None: ...


def event(number: int) -> Interaction:
    names = {"event_id": f"e{number}", "user_id": "ann", "item_id": "i"}
    return Interaction(**names, type="purchase", timestamp=1_300_000_000_000 + number)


def item(number: int) -> Item:
    return Item(item_id=f"i{number}", title="tea")


def with_a_hole(settings: Settings, topic: str, found: list[Any]) -> SegmentLog:
    """A log of all records, of which the segment with offsets 10..20 is gone."""
    log, classifier = SegmentLog(settings.log_dir), RecordClassifier.of(settings)
    for begin, end in ((0, 10), (10, 21), (21, COUNT)):
        buffer = Buffer(topic, 0, begin)
        for record in found[begin:end]:
            buffer.add(record, classifier, 0.0)
        log.append_from(topic, 0, begin, buffer.table(), "id")
    folder = log.partition_folder(topic, 0)
    (folder / log.segments(topic, 0)[1].file).unlink()
    repair(folder)
    return log


def backfilled(settings: Settings, log: SegmentLog, topic: str, kafka: APartition) -> None:
    backfill = Backfill(settings, log, RecorderMetrics(CollectorRegistry()))
    backfill._reader = kafka  # type: ignore[assignment]
    asyncio.run(backfill.fill(topic, 0))


def test_what_expired_is_known_as_lost_and_the_rest_is_read_again(make_settings):
    settings = make_settings(kafka={"partitions": 1}, log={"rows": 4})
    found = [record_of("interactions", 0, number, event(number)) for number in range(COUNT)]
    log = with_a_hole(settings, "interactions", found)
    backfilled(settings, log, "interactions", APartition(found, beginning=14))
    (lost,) = log.manifest("interactions", 0).missing
    assert (lost.first_offset, lost.last_offset, lost.rows, lost.expired) == (10, 13, 4, True)
    lenient = SegmentLog(settings.log_dir, skip_damaged=True)
    offsets = [row["offset"] for row in lenient.rows("interactions", 0)]
    assert offsets == [*range(10), *range(14, COUNT)]


def test_a_hole_that_expired_whole_is_asked_for_once(make_settings):
    settings = make_settings(kafka={"partitions": 1})
    found = [record_of("interactions", 0, number, event(number)) for number in range(COUNT)]
    log = with_a_hole(settings, "interactions", found)
    backfilled(settings, log, "interactions", APartition(found, beginning=25))
    assert [hole.expired for hole in log.manifest("interactions", 0).missing] == [True]


def test_offsets_that_the_topic_itself_lacks_are_not_missing(make_settings):
    settings = make_settings(kafka={"partitions": 1}, log={"rows": 4})
    found = [record_of("interactions", 0, number, event(number)) for number in range(COUNT)]
    log = with_a_hole(settings, "interactions", found)
    kept = [record for record in found if record.offset not in (10, 15, 20)]  # markers
    backfilled(settings, log, "interactions", APartition(kept, beginning=0))
    assert log.manifest("interactions", 0).missing == ()
    offsets = [row["offset"] for row in log.rows("interactions", 0)]
    assert offsets == [record.offset for record in kept]


def test_what_kafka_compacted_away_is_known_as_lost(make_settings):
    settings = make_settings(kafka={"partitions": 1})
    found = [record_of("items", 0, number, item(number)) for number in range(COUNT)]
    log = with_a_hole(settings, "items", found)
    kept = [record for record in found if record.offset not in (12, 13)]
    backfilled(settings, log, "items", APartition(kept, beginning=0))
    assert [(hole.rows, hole.expired) for hole in log.manifest("items", 0).missing] == [(2, True)]


# -- on a real broker --------------------------------------------------------------------------


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


def damaged_log(settings):
    """(The topic's log without offsets 10..20, the rows that it had)."""
    found = sorted(records(settings, "interactions"), key=lambda record: record.offset)
    whole = Buffer("interactions", 0, 0)
    for record in found:
        whole.add(record, RecordClassifier.of(settings), 0.0)
    return with_a_hole(settings, "interactions", found), whole.table().to_pylist()


async def filled(settings, log):
    backfill = Backfill(settings, log, RecorderMetrics(CollectorRegistry()))
    try:
        await backfill.fill("interactions", 0)
    finally:
        await backfill.stop()


@pytest.mark.service
def test_what_kafka_still_has_is_logged_as_it_was(settings):
    log, before = damaged_log(settings)
    with pytest.raises(EventLogError):
        list(log.rows("interactions", 0))
    asyncio.run(filled(settings, log))
    assert list(log.rows("interactions", 0)) == before
    assert log.manifest("interactions", 0).missing == ()


@pytest.mark.service
def test_a_record_is_found_at_its_offset_again(settings):
    log, before = damaged_log(settings)

    async def looked_up():
        backfill = Backfill(settings, log, RecorderMetrics(CollectorRegistry()))
        try:
            return await backfill.record_at("interactions", 0, 7)
        finally:
            await backfill.stop()

    logged = tuple(before[7][name] for name in ("kafka_time", "key", "size"))
    assert asyncio.run(looked_up()) == logged
