"""What the log has lost, read again from Kafka for as long as Kafka holds it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from models.settings import Settings
from streams.event_log import SegmentLog
from streams.event_log.manifest import Missing
from streams.kafka.clients import until_answered
from streams.kafka.read_at import Rereader
from streams.kafka.topics import TOPICS
from streams.metrics import RecorderMetrics
from streams.recorder.rows import Buffer, RecordClassifier

log = logging.getLogger(__name__)

POLL_MS: Final = 500


class Backfill:
    """Fills the holes of a log, a segment's worth at a time."""

    def __init__(self, settings: Settings, segments: SegmentLog, metrics: RecorderMetrics) -> None:
        self._settings, self._log, self._metrics = settings, segments, metrics
        self._classifier = RecordClassifier.of(settings)
        self._reader = Rereader(settings)

    async def fill(self, topic: str, partition: int) -> None:
        """Read again what is missing of a partition and has not expired."""
        for hole in self._log.manifest(topic, partition).missing:
            if not hole.expired:
                await self._fill_hole(topic, partition, hole)

    async def record_at(
        self, topic: str, partition: int, offset: int
    ) -> tuple[int, bytes | None, int] | None:
        """(Kafka time, key, bytes of the value) of a record; None if Kafka does not hold it."""
        place = TopicPartition(self._settings.topic(topic), partition)
        reader = await self._reader.at(place, offset)
        while await reader.position(place) <= offset:
            for record in (await reader.getmany(place, timeout_ms=POLL_MS)).get(place, ()):
                if record.offset == offset:
                    return record.timestamp, record.key, len(record.value or b"")
        return None

    async def stop(self) -> None:
        """Leave the broker; may be called twice."""
        await self._reader.stop()

    async def _fill_hole(self, topic: str, partition: int, hole: Missing) -> None:
        place, before = TopicPartition(self._settings.topic(topic), partition), hole
        reader = await self._reader.at(place, hole.first_offset)
        beginning = (await until_answered("backfill", lambda: reader.beginning_offsets([place])))[
            place
        ]
        found, due = 0, hole if hole.first_offset >= beginning else None
        if due is None:
            rest = expired_before(hole, beginning)
            self._put(Buffer(topic, partition, hole.first_offset), hole, rest)
            due = next((one for one in rest if not one.expired), None)
        while due is not None:
            rows = await self._read(reader, place, Buffer(topic, partition, due.first_offset), due)
            found += len(rows)
            rest = self._rest(topic, due, rows.next, len(rows))
            await asyncio.to_thread(self._put, rows, due, rest)
            due = next((one for one in rest if not one.expired), None)
        log.warning(
            "topic %s partition %d lacked %s: %d rows were read again from Kafka",
            *(topic, partition, before, found),
        )

    async def _read(
        self, reader: AIOKafkaConsumer, place: TopicPartition, rows: Buffer, hole: Missing
    ) -> Buffer:
        """The records of the hole's beginning, complete up to `next`."""
        limits = self._settings.log
        reader.seek(place, hole.first_offset)
        ends = await until_answered("backfill", lambda: reader.end_offsets([place]))
        end = min(hole.last_offset + 1, ends[place])
        while rows.next < end and len(rows) < limits.rows and rows.bytes < limits.bytes:
            batch = (await reader.getmany(place, timeout_ms=POLL_MS, max_records=500)).get(
                place, ()
            )
            for record in batch:
                if record.offset < end:
                    rows.add(record, self._classifier, 0.0)
            if not batch or batch[-1].offset >= end:
                rows.next = max(rows.next, min(end, await reader.position(place)))
        if rows.next >= end:
            rows.next = hole.last_offset + 1
        return rows

    def _rest(self, topic: str, hole: Missing, upto: int, found: int) -> list[Missing]:
        left = max(0, hole.rows - found)
        if upto <= hole.last_offset:
            return [replace(hole, first_offset=upto, rows=max(1, left))]
        # Kafka keeps every record of the others for as long as it keeps any newer one.
        lost = left if "compact" in TOPICS[topic].cleanup else 0
        return [replace(hole, rows=lost, expired=True)] if lost else []

    def _put(self, rows: Buffer, hole: Missing, rest: Sequence[Missing]) -> None:
        put = self._log.fill(rows.topic, rows.partition, hole, rows.table(), rest)
        self._metrics.backfilled.labels(rows.topic).inc(put)


def expired_before(hole: Missing, beginning: int) -> list[Missing]:
    """The hole in two: what Kafka holds no more, and what it may still hold."""
    if hole.last_offset < beginning:
        return [replace(hole, expired=True)]
    gone, kept = beginning - hole.first_offset, hole.last_offset + 1 - beginning
    return [
        replace(hole, last_offset=beginning - 1, rows=min(hole.rows, gone), expired=True),
        replace(hole, first_offset=beginning, rows=min(hole.rows, kept)),
    ]
