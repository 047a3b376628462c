"""The consume loop. Positions come from the log's manifests; committed offsets only show lag.

Two recorders may hold the same partition for a moment around a rebalance, or longer if one of
them was suspended: `SegmentLog.append_from` lets each offset in once, whoever comes first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from models.settings import Settings
from streams.event_log import LOGGED_TOPICS, SegmentLog, compact
from streams.kafka import consumer, group_id, start_client, until_answered
from streams.metrics import RecorderMetrics
from streams.reading import Offsets, Reading, positions_of
from streams.recorder.positions import check_position
from streams.recorder.rows import Buffer, Judge
from streams.service import until_stopped, working

log = logging.getLogger(__name__)

POLL_MS: Final = 200
SLICE: Final = 500  # records decoded between two turns of the event loop: heartbeats go on
TURN_S: Final = 5.0  # for the batch that is being written to end
COMMIT_WITHIN_S: Final = 5.0  # a broker that is away must not keep the role from stopping
Batches = dict[TopicPartition, list[ConsumerRecord]]


class Recorder(ConsumerRebalanceListener):
    """Records the partitions that the group gives to it."""

    def __init__(self, settings: Settings, metrics: RecorderMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._judge = Judge.of(settings)
        self._log = SegmentLog(settings.log_dir)
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._assigned: set[TopicPartition] | None = None
        self._flushing = asyncio.Lock()
        self._compaction: asyncio.Task[None] | None = None
        self._compacted_at = time.monotonic()
        self._turned = time.monotonic()  # when the last turn of the loop began
        self._reading = Reading(settings, self._positions)
        self._consumer: AIOKafkaConsumer | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop`, then write what is held. Raises TopicError (property 7)."""
        try:
            with working("recorder", stop):
                await until_stopped(stop, self._open())
                if not stop.is_set():
                    recording = self._record(stop)
                    await until_stopped(stop, recording, self._reading.watch(), grace_s=TURN_S)
            await self._flush(list(self._buffers))
        finally:
            if self._consumer is not None:
                await self._consumer.stop()
            await self._finish_compaction()

    async def _open(self) -> None:
        self._consumer = await start_client(self._new_consumer)
        topics = [self._settings.topic(topic) for topic in LOGGED_TOPICS]
        self._consumer.subscribe(topics, listener=self)

    async def _record(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._turned = time.monotonic()
            await self._open_assigned()
            await self._take(await self._poll())
            await self._flush(self._due())
            await self._compact_when_due()

    def not_ready(self) -> str | None:
        """None while all assigned partitions are recorded; else what is waited for."""
        if self._assigned is None:
            return "no partitions assigned yet"
        missing = self._assigned - self._buffers.keys()
        if missing:
            return f"{len(missing)} partitions not opened yet"
        limit = self._settings.liveness.stalled_s
        if time.monotonic() - self._turned > limit:
            return f"a batch takes longer than {limit:g} s to record"
        return self._reading.not_ready

    async def _positions(self) -> Offsets:
        """Where a topic was made anew, more is recorded than can be fetched of it."""
        fetched = await positions_of(self._client)
        return {
            place: max(buffer.next, fetched.get(place, 0))
            for place, buffer in self._buffers.items()
        }

    @property
    def _client(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "used before it has connected"
        return self._consumer

    def _new_consumer(self) -> AIOKafkaConsumer:
        group = group_id(self._settings, "recorder")
        return consumer(self._settings, (), group, max_poll_records=5_000)

    # Rebalances: what is held is written before another recorder takes over.

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Write what is held of them and forget them."""
        self._assigned = None
        async with self._flushing:  # a write under way comes first
            gone = {key: self._buffers.pop(key) for key in revoked if key in self._buffers}
            for partition in gone:
                self._metrics.lag.remove(*_labels(self._bare(partition)))
            await self._write_and_commit(gone)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Remember them; the loop opens them, so that a refusal ends the role."""
        self._assigned = set(assigned)

    async def _open_assigned(self) -> None:
        fresh = (self._assigned or set()) - self._buffers.keys()
        if not fresh:
            return
        beginnings, ends = await self._ranges(fresh)
        for partition in fresh & (self._assigned or set()):
            buffer = self._opened(partition, beginnings[partition], ends[partition])
            self._client.seek(partition, buffer.next)
            self._buffers[partition] = buffer
            self._metrics.lag.labels(*_labels(self._bare(partition))).set(
                ends[partition] - buffer.next
            )
        log.info("recording %d partitions", len(self._buffers))

    async def _ranges(
        self, partitions: Iterable[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        asked = list(partitions)

        async def ask() -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
            beginnings = await self._client.beginning_offsets(asked)
            return beginnings, await self._client.end_offsets(asked)

        return await until_answered("looking up offsets", ask)

    def _opened(self, partition: TopicPartition, beginning: int, end: int) -> Buffer:
        """A buffer that goes on where the log ends, or behind an accepted gap."""
        topic, number = self._bare(partition)
        buffer = Buffer(topic, number, start=self._log.next_offset(topic, number))
        buffer.next = self._checked(partition, buffer.start, beginning, end)
        return buffer

    def _checked(self, partition: TopicPartition, resume: int, beginning: int, end: int) -> int:
        return check_position(
            partition.topic,
            partition.partition,
            resume,
            beginning,
            end,
            accept_gap=self._settings.log.accept_gap,
        )

    def _bare(self, partition: TopicPartition) -> tuple[str, int]:
        topic = partition.topic.removeprefix(self._settings.kafka.prefix)
        return topic, partition.partition

    # Records into buffers.

    async def _poll(self) -> Batches:
        return await until_answered("reading", lambda: self._client.getmany(timeout_ms=POLL_MS))

    async def _take(self, batches: Batches) -> None:
        for partition, records in batches.items():
            buffer = self._buffers.get(partition)
            if buffer is None:
                continue  # not opened yet: it will be read from where the log ends
            if records[0].offset != buffer.next:
                await self._check_jump(partition, buffer)
            for start in range(0, len(records), SLICE):
                if self._buffers.get(partition) is not buffer:
                    break  # revoked meanwhile: the next owner reads these again
                self._add(buffer, records[start : start + SLICE])
                await asyncio.sleep(0)
            self._observe_lag(partition, buffer)

    async def _check_jump(self, partition: TopicPartition, buffer: Buffer) -> None:
        """Single missing offsets are normal; lost ones, or another topic, are refused."""
        beginnings, ends = await self._ranges([partition])
        self._checked(partition, buffer.next, beginnings[partition], ends[partition])

    def _add(self, buffer: Buffer, records: Sequence[ConsumerRecord]) -> None:
        now = time.monotonic()
        for record in records:
            if record.offset >= buffer.next:
                buffer.add(record, self._judge, now)

    def _observe_lag(self, partition: TopicPartition, buffer: Buffer) -> None:
        end = self._client.highwater(partition)
        if end is not None and partition in self._buffers:
            self._metrics.lag.labels(*_labels(self._bare(partition))).set(end - buffer.next)

    # Buffers into segments.

    def _due(self) -> list[TopicPartition]:
        limits = self._settings.log
        before = time.monotonic() - limits.seconds
        full = sum(buffer.bytes for buffer in self._buffers.values()) > 2 * limits.bytes
        return [
            partition
            for partition, buffer in self._buffers.items()
            if len(buffer)
            and (
                full
                or len(buffer) >= limits.rows
                or buffer.bytes >= limits.bytes
                or buffer.since <= before
            )
        ]

    async def _flush(self, partitions: Iterable[TopicPartition]) -> None:
        async with self._flushing:
            known = (key for key in partitions if key in self._buffers)
            await self._write_and_commit({key: self._buffers[key].take() for key in known})

    async def _write_and_commit(self, taken: dict[TopicPartition, Buffer]) -> None:
        held = {key: rows for key, rows in taken.items() if len(rows)}
        # 1. durable in the log  2. committed, for those who watch the lag
        for rows in held.values():
            await asyncio.to_thread(self._write, rows)
        if held:
            await self._commit({key: rows.next for key, rows in held.items()})

    def _write(self, rows: Buffer) -> None:
        place, began = (rows.topic, rows.partition), time.perf_counter()
        segment = self._log.append_from(*place, rows.start, rows.table())
        if segment is None:
            log.warning("another recorder has written topic %s partition %d", *place)
            return
        self._metrics.write_latency.labels(rows.topic).observe(time.perf_counter() - began)
        self._metrics.segments.labels(rows.topic).inc()
        self._metrics.segment_bytes.labels(rows.topic).inc(segment.bytes)
        self._metrics.next_offset.labels(*_labels(place)).set(rows.next)
        for status, count in rows.statuses(segment.rows).items():
            self._metrics.rows.labels(rows.topic, status).inc(count)

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        try:
            async with asyncio.timeout(COMMIT_WITHIN_S):
                await self._client.commit(offsets)
        except (KafkaError, TimeoutError) as error:  # nothing rests on it: the log says where
            log.info("offsets not committed: %r", error)

    # Small segments into larger ones.

    async def _compact_when_due(self) -> None:
        if self._compaction is not None and self._compaction.done():
            await self._finish_compaction()
        waited = time.monotonic() - self._compacted_at
        if self._compaction is None and waited >= self._settings.log.compact_every_s:
            self._compacted_at = time.monotonic()
            owned = [self._bare(partition) for partition in self._buffers]
            self._compaction = asyncio.create_task(asyncio.to_thread(self._compact, owned))

    def _compact(self, partitions: Sequence[tuple[str, int]]) -> None:
        below = self._settings.log.compact_below_rows
        for topic, partition in partitions:
            merged = compact(self._log, topic, partition, below)
            self._metrics.compactions.labels(topic).inc(merged)

    async def _finish_compaction(self) -> None:
        if self._compaction is not None:
            running, self._compaction = self._compaction, None
            await running


def _labels(partition: tuple[str, int]) -> tuple[Any, ...]:
    return partition[0], str(partition[1])
