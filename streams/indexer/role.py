"""The consume loop: records of `items` and `profiles` become rows, in micro-batches.

Delivery is at least once and writes are by id, so a batch that is written twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from models.ports import Release, ReleaseStore, TextEmbedder, VectorIndex
from models.releases import items_table, profiles_table
from models.settings import Settings
from streams.codec import Rejected
from streams.indexer.changes import Change, item_change, profile_change
from streams.indexer.first_release import announce_first, release_to_index
from streams.indexer.snapshots import Snapshots
from streams.indexer.tables import Table
from streams.kafka import (
    consumer,
    dead_letter_send,
    group_id,
    producer,
    start_client,
)
from streams.metrics import IndexerMetrics
from streams.serving_release import ServingRelease
from streams.topic_follower import TopicFollower
from streams.topics import TOPICS as TOPIC_SPECS

log = logging.getLogger(__name__)

POLL_MS: Final = 100
TOPICS: Final = ("items", "profiles")


class Indexer:
    """Keeps the tables of the serving release as the topics say."""

    def __init__(
        self,
        settings: Settings,
        index: VectorIndex,
        embedder: TextEmbedder,
        releases: ReleaseStore,
        metrics: IndexerMetrics,
    ) -> None:
        self._settings = settings
        self._index = index
        self._embedder = embedder
        self._releases = releases
        self._metrics = metrics
        self._serving = ServingRelease()
        self._follower = TopicFollower(settings, "releases", self._serving.on_record)
        self.release: Release
        self._tables: dict[str, Table] = {}  # by topic
        self._ends: dict[TopicPartition, int] = {}  # of the topics when the role started
        self._announced = False
        self.caught_up = asyncio.Event()  # all records that were there at the start are rows
        self._consumer: AIOKafkaConsumer
        self._producer: AIOKafkaProducer

    async def run(self, stop: asyncio.Event, *, from_scratch: bool = False) -> None:
        """Index until `stop`; `from_scratch` drops the tables first.

        Raises ReleaseError or VectorIndexError if it cannot.
        """
        await self._open(from_scratch)
        snapshots = asyncio.create_task(Snapshots(self._settings, self._metrics).keep_fresh())
        consuming = asyncio.create_task(self._consume(stop))
        following = asyncio.create_task(self._follower.failed())
        try:
            await _first_to_end(consuming, snapshots, following)
        finally:
            for task in (snapshots, following, consuming):
                task.cancel()
            await asyncio.gather(snapshots, following, consuming, return_exceptions=True)
            await self._close()

    def not_ready(self) -> str | None:
        """None once a release serves and the topics are followed; else what is waited for."""
        if not self._announced:
            return "items are being indexed for the first time"
        return self._follower.not_ready

    async def _open(self, from_scratch: bool) -> None:
        await self._follower.start()
        await self._follower.caught_up()
        serving = self._serving.id
        known = self._releases.ids()
        self.release = release_to_index(self._settings, self._releases, serving)
        # A release folder that was lost and made anew has another manifest: said again.
        self._announced = serving is not None and self.release.id in known
        names = (items_table(self.release.id), profiles_table(self.release.id))
        self._tables = {
            topic: Table(name, self._index, self._embedder, self._settings.index, self._metrics)
            for topic, name in zip(TOPICS, names, strict=True)
        }
        if from_scratch:
            for name in names:
                await asyncio.to_thread(self._index.drop, name)
        self._producer = await start_client(lambda: producer(self._settings))
        self._consumer = await start_client(self._new_consumer)
        await self._place()

    def _new_consumer(self) -> AIOKafkaConsumer:
        return consumer(self._settings, (), group_id(self._settings, "indexer"))

    async def _place(self) -> None:
        """Take all partitions: the index's lock, not the group, keeps a second indexer out.

        What has no table is read from the beginning, and that is committed before anything is
        written: a crash half way must not leave part of a table with the offsets of a whole one.
        """
        partitions = {topic: self._partitions(topic) for topic in TOPICS}
        everything = [one for found in partitions.values() for one in found]
        self._consumer.assign(everything)
        for topic, mine in partitions.items():
            if not await asyncio.to_thread(self._tables[topic].exists):
                beginnings = await self._consumer.beginning_offsets(mine)
                for partition, offset in beginnings.items():
                    self._consumer.seek(partition, offset)
                await self._consumer.commit(beginnings)
        self._ends = await self._consumer.end_offsets(everything)

    def _partitions(self, topic: str) -> list[TopicPartition]:
        count = TOPIC_SPECS[topic].partition_count(self._settings)
        return [TopicPartition(self._settings.topic(topic), number) for number in range(count)]

    async def _close(self) -> None:
        await self._follower.stop()
        await self._consumer.stop()
        await self._producer.stop()

    async def _consume(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            records = await self._next_batch(stop)
            if records:
                # 1. rows durable and visible  2. dead letters acknowledged  3. committed
                for topic in TOPICS:
                    await self._write(topic, records)
                await self._commit()
                self._observe_lag(records)
            await self._look_whether_caught_up()
            for table in self._tables.values():
                if table.due():
                    await asyncio.to_thread(table.optimize)

    async def _next_batch(self, stop: asyncio.Event) -> list[ConsumerRecord]:
        """Up to micro_batch records, or what came within the linger of the first."""
        limits = self._settings.index
        batch: list[ConsumerRecord] = []
        began = time.monotonic()
        while len(batch) < limits.micro_batch and not stop.is_set():
            room = limits.micro_batch - len(batch)
            found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=room)
            if not batch:
                began = time.monotonic()
            batch += [record for records in found.values() for record in records]
            if not batch or time.monotonic() - began >= limits.linger_s:
                break
        return batch

    async def _write(self, topic: str, batch: Sequence[ConsumerRecord]) -> None:
        records = [one for one in batch if one.topic == self._settings.topic(topic)]
        decoded = [(record, self._change(topic, record)) for record in records]
        changes = [change for _, change in decoded if isinstance(change, Change)]
        if changes:
            await asyncio.to_thread(self._tables[topic].write, changes)
        for record, change in decoded:
            if isinstance(change, Rejected):
                await self._dead_letter(record, change)
                self._metrics.rows.labels(topic, "invalid").inc()
            else:
                waited = time.time() - record.timestamp / 1000
                self._metrics.publish_to_index.labels(topic).observe(max(waited, 0.0))

    async def _dead_letter(self, record: ConsumerRecord, why: Rejected) -> None:
        await dead_letter_send(self._producer, self._settings, record, why, self._metrics)

    def _change(self, topic: str, record: ConsumerRecord) -> Change | Rejected:
        if topic == "items":
            return item_change(record, self._settings.embedder.description_chars)
        return profile_change(record, self.release.id)

    async def _commit(self) -> None:
        try:
            await self._consumer.commit()
        except KafkaError as error:  # what is read again after a restart is written by id
            log.warning("offsets not committed, the next commit includes them: %s", error)

    def _observe_lag(self, records: Sequence[ConsumerRecord]) -> None:
        reached = {(one.topic, one.partition): one.offset + 1 for one in records}
        for (topic, partition), position in reached.items():
            end = self._consumer.highwater(TopicPartition(topic, partition)) or position
            self._metrics.lag.labels(topic, str(partition)).set(end - position)

    async def _look_whether_caught_up(self) -> None:
        """Items that were there before the first release serves are in it."""
        if self.caught_up.is_set():
            return
        for partition, end in self._ends.items():
            if await self._consumer.position(partition) < end:
                return
        if not self._announced:
            await announce_first(self._producer, self._settings, self.release)
            self._announced = True
        self.caught_up.set()


async def _first_to_end(consuming: asyncio.Task[None], *beside: asyncio.Task[None]) -> None:
    """Until consuming ends or one of the tasks beside it fails; raises what it raised."""
    done, _ = await asyncio.wait({consuming, *beside}, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
