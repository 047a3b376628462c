"""One release's two tables, kept as the topics `items` and `profiles` say, in micro-batches.

Every release that is kept (serving, candidate, previous) reads the topics by itself, under a
consumer group of its own: a candidate from the beginning, beside the serving one, and a killed
indexer goes on with each where it was. Delivery is at least once and writes are by id, so a batch
that is written twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from models.settings import Settings
from streams.codec import Record, Rejected
from streams.indexer.changes import Change, item_change, profile_change
from streams.indexer.rejects import Rejects
from streams.indexer.tables import Table
from streams.kafka import consumer, group_id, readable_end, start_client
from streams.last_resort import attempted, failure, log_failure
from streams.metrics import IndexerMetrics
from streams.topics import TOPICS as TOPIC_SPECS

log = logging.getLogger(__name__)

POLL_MS: Final = 100
TOPICS: Final = ("items", "profiles")
Placed = tuple[Record, Change]  # a change and the record that asks for it


def readers_group(settings: Settings, release_id: str) -> str:
    """Consumer group under which a release's tables are kept."""
    return group_id(settings, f"indexer-{release_id}")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the keepers of all releases have in common."""

    settings: Settings
    metrics: IndexerMetrics
    rejects: Rejects
    writing: asyncio.Lock  # one batch at a time, in turn: a candidate does not starve the serving
    serving: Callable[[], str | None]
    on_news: Callable[[], None]  # called when a topic has been read up to where it ended


class Keeper:
    """Reads the topics for one release and writes its tables."""

    def __init__(
        self,
        shared: Shared,
        release_id: str,
        tables: Mapping[str, Table],
        takes_over: Callable[[str], bool],
    ) -> None:
        """`tables` by topic; `takes_over`: whether vectors of that release serve this one."""
        self.release_id = release_id
        self._shared, self._tables, self._takes_over = shared, tables, takes_over
        self._settings, self._metrics = shared.settings, shared.metrics
        self._ends: dict[TopicPartition, int] = {}  # of the topics when the keeper started
        self._caught_up: set[str] = set()
        self._lags: dict[TopicPartition, int] = {}  # of the partitions read from so far
        self._consumer: AIOKafkaConsumer

    def has_caught_up(self, topic: str) -> bool:
        """Whether all records of the topic that were there at the start are rows."""
        return topic in self._caught_up

    async def run(self, stop: asyncio.Event, *, from_scratch: bool = False) -> None:
        """Keep the tables until `stop`; `from_scratch` drops them first."""
        group = readers_group(self._settings, self.release_id)
        self._consumer = await start_client(lambda: consumer(self._settings, (), group))
        try:
            if from_scratch:
                for table in self._tables.values():
                    await asyncio.to_thread(table.drop)
            await self._place()
            while not stop.is_set():
                await self._step(stop)
        finally:
            with suppress(KeyError):  # it never began
                self._metrics.release_lag.remove(self.release_id)
            await self._consumer.stop()

    async def _place(self) -> None:
        """Take all partitions: the index's lock, not the group, keeps a second indexer out.

        What has no table is read from the beginning, and that is committed before anything is
        written: a crash half way must not leave part of a table with the offsets of a whole one.
        """
        partitions = {topic: self._partitions(topic) for topic in TOPICS}
        everything = [one for found in partitions.values() for one in found]
        self._consumer.assign(everything)
        self._ends = await self._consumer.end_offsets(everything)
        await self._note_reported()
        self._metrics.release_lag.labels(self.release_id).set(0)
        for topic, mine in partitions.items():
            if not await asyncio.to_thread(self._tables[topic].exists):
                beginnings = await self._consumer.beginning_offsets(mine)
                for partition, offset in beginnings.items():
                    self._consumer.seek(partition, offset)
                await self._consumer.commit(beginnings)

    def _partitions(self, topic: str) -> list[TopicPartition]:
        count = TOPIC_SPECS[topic].partition_count(self._settings)
        return [TopicPartition(self._settings.topic(topic), number) for number in range(count)]

    async def _note_reported(self) -> None:
        committed = {place: await self._consumer.committed(place) or 0 for place in self._ends}
        self._shared.rejects.reported_until(
            {place: min(offset, self._ends[place]) for place, offset in committed.items()}
        )

    async def _step(self, stop: asyncio.Event) -> None:
        records = await self._next_batch(stop)
        if records:
            # 1. rows durable and visible  2. dead letters acknowledged  3. committed
            for topic in TOPICS:
                await self._write(topic, records)
            self._shared.rejects.passed(records)
            await self._commit()
            self._observe_lag(records)
        await self._look_whether_caught_up()
        for table in self._tables.values():
            if table.due():
                async with self._shared.writing:
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
        decoded = [(one, attempted(one, partial(self._change, topic, one))) for one in records]
        refused = [(record, why) for record, why in decoded if isinstance(why, Rejected)]
        changes = [(record, what) for record, what in decoded if isinstance(what, Change)]
        refused += await self._put(topic, changes) if changes else []
        for record, why in refused:
            await self._shared.rejects.report(topic, record, why)
        if self._serves:
            self._observe_latency(topic, [record for record, _ in changes])

    async def _put(self, topic: str, changes: Sequence[Placed]) -> list[tuple[Record, Rejected]]:
        """Write the changes together; if that fails, each alone. Returns those that fail."""
        table = self._tables[topic]
        try:
            async with self._shared.writing:
                await asyncio.to_thread(table.write, [change for _, change in changes])
        except Exception as error:  # noqa: BLE001 (the last resort)
            why = failure(error)
            if len(changes) > 1:
                return [failed for one in changes for failed in await self._put(topic, [one])]
            await asyncio.to_thread(table.check_embedder)
            log_failure(changes[0][0], error)
            return [(changes[0][0], why)]
        return []

    def _observe_latency(self, topic: str, records: Sequence[Record]) -> None:
        for record in records:
            waited = time.time() - record.timestamp / 1000
            self._metrics.publish_to_index.labels(topic).observe(max(waited, 0.0))

    @property
    def _serves(self) -> bool:
        return self._shared.serving() == self.release_id

    def _change(self, topic: str, record: ConsumerRecord) -> Change | Rejected:
        partitions = self._settings.kafka.partitions
        if topic == "items":
            return item_change(record, partitions, self._settings.embedder.description_chars)
        return profile_change(record, partitions, self._takes_over)

    async def _commit(self) -> None:
        try:
            await self._consumer.commit()
        except KafkaError as error:  # what is read again after a restart is written by id
            log.warning("offsets not committed, the next commit includes them: %s", error)

    def _observe_lag(self, records: Sequence[ConsumerRecord]) -> None:
        reached = {TopicPartition(one.topic, one.partition): one.offset + 1 for one in records}
        for place, position in reached.items():
            end = readable_end(self._consumer, place) or position
            self._lags[place] = max(0, end - position)
            if self._serves:
                self._metrics.lag.labels(place.topic, str(place.partition)).set(self._lags[place])
        self._metrics.release_lag.labels(self.release_id).set(sum(self._lags.values()))

    async def _look_whether_caught_up(self) -> None:
        for topic in TOPICS:
            if topic not in self._caught_up and await self._is_at_end(topic):
                self._caught_up.add(topic)
                self._shared.on_news()

    async def _is_at_end(self, topic: str) -> bool:
        for partition in self._partitions(topic):
            if await self._consumer.position(partition) < self._ends[partition]:
                return False
        return True
