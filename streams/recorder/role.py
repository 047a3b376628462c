"""The consume loop. Positions come from the log's manifests; committed offsets only show lag.

Two recorders may hold the same partition for a moment around a rebalance, or longer if one of
them was suspended: `SegmentLog.append_from` lets each offset in once, whoever comes first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from models.errors import SegmentDamaged
from models.settings import Settings
from streams.event_log import LOGGED_TOPICS, SegmentLog
from streams.event_log.manifest import Manifest
from streams.event_log.repair import repair, set_apart
from streams.kafka.clients import consumer, group_id, readable_end, start_client, until_answered
from streams.kafka.consumption import ConsumptionWatch, Positions, positions_of
from streams.kafka.continuity import (
    WATCH_S,
    Kept,
    Present,
    TopicWatch,
    check_continuity,
    made_again,
)
from streams.metrics import RecorderMetrics
from streams.recorder.parity_watch import watch_parity
from streams.recorder.rows import Buffer, RecordClassifier
from streams.recorder.upkeep import Upkeep
from streams.role import StreamRole
from streams.service import cancelled, until_stopped

log = logging.getLogger(__name__)

POLL_MS: Final = 200
SLICE_S: Final = 0.1  # of judging between two turns of the event loop: heartbeats go on
TURN_S: Final = 5.0  # for the batch that is being written to end
COMMIT_AGAIN_S: Final = 1.0  # between tries
ANSWER_WITHIN_S: Final = 5.0  # a broker that is away must not keep the role from stopping
MARKER: Final = 1  # offset that a transaction leaves between its records and the next one's
Batches = dict[TopicPartition, list[ConsumerRecord]]


class Recorder(StreamRole, ConsumerRebalanceListener):
    """Records the partitions that the group gives to it."""

    def __init__(self, settings: Settings, metrics: RecorderMetrics) -> None:
        super().__init__("recorder", settings, metrics, settings.metrics.recorder_port)
        self._metrics = metrics
        self._classifier = RecordClassifier.of(settings)
        self._log = SegmentLog(settings.log_dir)
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._assigned: set[TopicPartition] | None = None
        self._flushing = asyncio.Lock()
        self._watch = TopicWatch(settings, LOGGED_TOPICS)
        self._topic_ids: dict[str, str] = {}
        self._watched_at = time.monotonic()
        self._upkeep = Upkeep(settings, self._log, metrics)
        self._turned = time.monotonic()  # when the last turn of the loop began
        self._reading = ConsumptionWatch(settings, self._positions)
        self._consumer: AIOKafkaConsumer | None = None
        self._assignments = 0  # grows with every change of `_assigned`
        self._unwritten = False  # what is due cannot be written, for Kafka does not answer
        self._uncommitted: dict[TopicPartition, int] = {}  # up to where the log reaches
        self._committed_at = time.monotonic()  # when a commit was tried last

    async def connect(self, closing: AsyncExitStack) -> None:
        """Watch parity from now on, and join the group."""
        parity = asyncio.create_task(watch_parity(self._settings, self._metrics))
        closing.push_async_callback(cancelled, [parity])
        closing.push_async_callback(self._watch.stop)
        closing.push_async_callback(self._upkeep.stop)
        self._consumer = await start_client(self._new_consumer)
        closing.push_async_callback(self._consumer.stop)
        topics = [self._settings.topic(topic) for topic in LOGGED_TOPICS]
        self._client.subscribe(topics, listener=self)

    async def work(self, stop: asyncio.Event) -> None:
        """Record until `stop`. Raises TopicError (property 7)."""
        recording = self._record(stop)
        await until_stopped(stop, recording, self._reading.watch(), grace_s=TURN_S)

    async def drain(self) -> None:
        """Write what is held."""
        await self._flush(list(self._buffers))

    async def _record(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._turned = time.monotonic()
            await self._open_assigned()
            if self._unwritten and self._full():
                await asyncio.sleep(POLL_MS / 1000)  # what is held goes first
            else:
                await self._take(await self._poll())
            await self._flush(self._due())
            await self._commit_when_due()
            await self._watch_when_due()
            await self._upkeep.when_due([self._bare(partition) for partition in self._buffers])

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

    async def _positions(self) -> Positions:
        """Where a topic was made anew, more is recorded than can be fetched of it."""
        fetched = await positions_of(self._client)
        return {
            place: max(buffer.next, fetched.get(place) or 0)
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
        self._assignments += 1
        async with self._flushing:  # a write under way comes first
            gone = {key: self._buffers.pop(key) for key in revoked if key in self._buffers}
            for partition in gone:
                self._metrics.lag.remove(*_labels(self._bare(partition)))
            if gone and await self._same_topics():  # else the next owner reads them again
                await self._write_and_commit(gone)
            for partition in gone:
                self._uncommitted.pop(partition, None)  # the next owner commits what is logged

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Remember them; the loop opens them, so that a refusal ends the role."""
        self._assigned = set(assigned)
        self._assignments += 1
        for gone in self._buffers.keys() - self._assigned:  # opened while it was taken away
            del self._buffers[gone]
        for gone in self._uncommitted.keys() - self._assigned:
            del self._uncommitted[gone]

    async def _open_assigned(self) -> None:
        fresh = (self._assigned or set()) - self._buffers.keys()
        if not fresh:
            return
        self._topic_ids = await self._watch.ids()
        beginnings, ends = await self._ranges(fresh)
        assignment = self._assignments
        for partition in fresh & (self._assigned or set()):
            present = Present(
                self._topic_ids.get(partition.topic), beginnings[partition], ends[partition]
            )
            buffer = await self._opened(partition, present)
            if assignment != self._assignments:
                return  # which partitions are ours now is for the next turn
            self._client.seek(partition, buffer.next)
            self._buffers[partition] = buffer
            if buffer.next:  # a former owner may have written this and not committed it
                self._uncommitted[partition] = buffer.next
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

    async def _opened(self, partition: TopicPartition, present: Present) -> Buffer:
        """A buffer that goes on where the log ends, or behind an accepted gap."""
        topic, number = self._bare(partition)
        folder = self._log.partition_folder(topic, number)
        manifest = await asyncio.to_thread(repair, folder)
        self._upkeep.note_opened((topic, number), manifest)
        buffer = Buffer(topic, number, start=manifest.next_offset)
        kept = self._kept(partition, buffer.start, manifest.topic_id)
        if manifest.segments and not (manifest.topic_id and present.topic_id):
            await self._check_last_record(kept, manifest, present)
        buffer.next = check_continuity(kept, present, self._settings.log.accept_gap)
        return buffer

    def _kept(self, partition: TopicPartition, upto: int, topic_id: str | None) -> Kept:
        return Kept.by_log(partition.topic, partition.partition, upto, topic_id)

    async def _check_last_record(self, kept: Kept, manifest: Manifest, present: Present) -> None:
        """Where ids do not tell, the last logged record must stand in the topic as it was."""
        topic, number = self._bare(TopicPartition(kept.topic, kept.partition))
        last = manifest.segments[-1].last_offset
        if not present.beginning <= last < present.end:
            return
        columns = ("kafka_time", "key", "size")
        try:
            (logged,) = self._log.rows(topic, number, last, last, columns)
        except SegmentDamaged as error:
            folder = self._log.partition_folder(topic, number)
            log.error("%s; %s", error, await asyncio.to_thread(set_apart, folder, error.file))
            return
        found = await self._upkeep.backfill.record_at(topic, number, last)
        if found is not None and found != tuple(logged.values()):
            raise made_again(kept, f"the record at offset {last} is another one")

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
            if not 0 <= records[0].offset - buffer.next <= MARKER:
                await self._check_jump(partition, buffer)
            await self._add(partition, buffer, records)
            self._observe_lag(partition, buffer)

    async def _check_jump(self, partition: TopicPartition, buffer: Buffer) -> None:
        """Single missing offsets are normal; lost ones, or another topic, are refused."""
        found = (await self._watch.ids()).get(partition.topic)
        beginnings, ends = await self._ranges([partition])
        present = Present(found, beginnings[partition], ends[partition])
        kept = self._kept(partition, buffer.next, self._topic_ids.get(partition.topic))
        check_continuity(kept, present, self._settings.log.accept_gap)

    async def _watch_when_due(self) -> None:
        if time.monotonic() - self._watched_at >= WATCH_S:
            await self._same_topics()

    async def _same_topics(self) -> bool:
        """Whether the topics are known to be those that are being recorded.

        Asked after records were fetched and before they are written: what comes from a topic
        that was made again meanwhile is not taken for the old one's. Raises TopicError.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._watch.ids()
        except TimeoutError:
            log.info("Kafka does not answer; what is held is written when it does")
            return False
        finally:
            self._watched_at = time.monotonic()
        return True

    async def _add(
        self, partition: TopicPartition, buffer: Buffer, records: Sequence[ConsumerRecord]
    ) -> None:
        turned = now = time.monotonic()
        for record in records:
            if record.offset >= buffer.next:
                buffer.add(record, self._classifier, now)
            now = time.monotonic()
            if now - turned >= SLICE_S:  # by time, for some records take a thousand times others'
                await asyncio.sleep(0)
                turned = now = time.monotonic()
                if self._buffers.get(partition) is not buffer:
                    return  # revoked meanwhile: the next owner reads these again
        await asyncio.sleep(0)

    def _observe_lag(self, partition: TopicPartition, buffer: Buffer) -> None:
        end = readable_end(self._client, partition)
        if end is not None and partition in self._buffers:
            self._metrics.lag.labels(*_labels(self._bare(partition))).set(max(0, end - buffer.next))

    # Buffers into segments.

    def _due(self) -> list[TopicPartition]:
        limits = self._settings.log
        before = time.monotonic() - limits.seconds
        full = self._full()
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

    def _full(self) -> bool:
        return sum(one.bytes for one in self._buffers.values()) > 2 * self._settings.log.bytes

    async def _flush(self, partitions: Sequence[TopicPartition]) -> None:
        async with self._flushing:
            self._unwritten = bool(partitions) and not await self._same_topics()
            if partitions and not self._unwritten:
                known = (key for key in partitions if key in self._buffers)
                await self._write_and_commit({key: self._buffers[key].take() for key in known})

    async def _write_and_commit(self, taken: dict[TopicPartition, Buffer]) -> None:
        held = {key: rows for key, rows in taken.items() if len(rows)}
        # 1. durable in the log  2. committed, for those who watch the lag
        for rows in held.values():
            await asyncio.to_thread(self._write, rows)
        if held:
            self._uncommitted |= {key: rows.next for key, rows in held.items()}
            await self._commit()

    def _write(self, rows: Buffer) -> None:
        place, began = (rows.topic, rows.partition), time.perf_counter()
        topic_id = self._topic_ids.get(self._settings.topic(rows.topic))
        segment = self._log.append_from(*place, rows.start, rows.table(), topic_id)
        if segment is None:
            log.warning("another recorder has written topic %s partition %d", *place)
            return
        self._metrics.write_latency.labels(rows.topic).observe(time.perf_counter() - began)
        self._metrics.segments.labels(rows.topic).inc()
        self._metrics.segment_bytes.labels(rows.topic).inc(segment.bytes)
        self._metrics.next_offset.labels(*_labels(place)).set(rows.next)
        self._metrics.failed.labels(rows.topic).inc(rows.failed(segment.rows))
        for status, count in rows.statuses(segment.rows).items():
            self._metrics.rows.labels(rows.topic, status).inc(count)

    async def _commit(self) -> None:
        """Nothing but the lag rests on it: the log says where. What fails is tried again."""
        offsets, self._committed_at = dict(self._uncommitted), time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._client.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            log.info("offsets not committed: %r", error)
        else:
            for partition, offset in offsets.items():
                if self._uncommitted.get(partition) == offset:
                    del self._uncommitted[partition]

    async def _commit_when_due(self) -> None:
        """Where nothing comes any more, no later flush makes up for a commit that failed."""
        if self._uncommitted and time.monotonic() - self._committed_at >= COMMIT_AGAIN_S:
            await self._commit()


def _labels(partition: tuple[str, int]) -> tuple[Any, ...]:
    return partition[0], str(partition[1])
