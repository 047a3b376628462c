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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from models.errors import VectorIndexError, VectorIndexUnavailable
from models.settings import Settings
from streams.codec import Record, Rejected
from streams.indexer.changes import Change, item_change, profile_change
from streams.indexer.rejects import Rejects
from streams.indexer.tables import IndexedTable
from streams.kafka.clients import consumer, group_id, readable_end, start_client, until_answered
from streams.kafka.consumption import positions_of
from streams.kafka.topics import TOPICS as TOPIC_SPECS
from streams.last_resort import attempted, failure, log_failure
from streams.metrics import IndexerMetrics

log = logging.getLogger(__name__)

POLL_MS: Final = 100
AGAIN_S: Final = 2.0  # between tries while the machine refuses
VERIFY_EVERY_S: Final = 30.0  # reads eight bytes of every row
TOPICS: Final = ("items", "profiles")
Placed = tuple[Record, Change]  # a change and the record that asks for it


def readers_group(settings: Settings, release_id: str) -> str:
    """Consumer group under which a release's tables are kept."""
    return group_id(settings, f"indexer-{release_id}")


@dataclass(frozen=True, slots=True)
class SyncTools:
    """What the keepers of all releases have in common."""

    settings: Settings
    metrics: IndexerMetrics
    rejects: Rejects
    writing: asyncio.Lock  # one batch at a time, in turn: a candidate does not starve the serving
    serving: Callable[[], str | None]
    on_news: Callable[[], None]  # called when a topic has been read up to where it ended


class TableSync:
    """Reads the topics for one release and writes its tables."""

    def __init__(
        self,
        shared: SyncTools,
        release_id: str,
        tables: Mapping[str, IndexedTable],
        takes_over: Callable[[str], bool],
    ) -> None:
        """`tables` by topic; `takes_over`: whether vectors of that release serve this one."""
        self.release_id = release_id
        self._shared, self._tables, self._takes_over = shared, tables, takes_over
        self._settings, self._metrics = shared.settings, shared.metrics
        self._ends: dict[TopicPartition, int] = {}  # of the topics when the keeper started
        self._caught_up: set[str] = set()
        self._lags: dict[TopicPartition, int] = {}  # of the partitions read from so far
        self._turned = time.monotonic()  # when the last batch was begun
        self._verified = self._turned
        self._consumer: AIOKafkaConsumer | None = None  # once it has connected
        self.problem: str | None = None  # why the tables cannot be written now

    def standing_still(self, limit_s: float) -> str | None:
        """Why nothing is read, if that has been so for longer than the limit."""
        if time.monotonic() - self._turned <= limit_s:
            return None
        return f"a batch of release {self.release_id} takes longer than {limit_s:g} s"

    @property
    def _client(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "used before it has connected"
        return self._consumer

    async def positions(self) -> dict[TopicPartition, int | None]:
        """The next offset to read, of each partition."""
        return await positions_of(self._consumer) if self._consumer else {}

    def end(self) -> None:
        """No thread that `run` has left behind writes to the tables any more."""
        for table in self._tables.values():
            table.end()

    def has_caught_up(self, topic: str) -> bool:
        """Whether all records of the topic that were there at the start are rows."""
        return topic in self._caught_up

    async def run(self, stop: asyncio.Event, *, from_scratch: bool = False) -> None:
        """Keep the tables until `stop`; `from_scratch` drops them first."""
        group = readers_group(self._settings, self.release_id)
        self._consumer = await start_client(lambda: consumer(self._settings, (), group))
        try:
            for table in self._tables.values():
                await asyncio.to_thread(self._clear, table, from_scratch)
            await until_answered(f"release {self.release_id}", self._place)
            while not stop.is_set():
                await self._step(stop)
        finally:
            with suppress(KeyError):  # it never began
                self._metrics.release_lag.remove(self.release_id)
            await self._client.stop()

    def _clear(self, table: IndexedTable, from_scratch: bool) -> None:
        """Drop a table that is to be made anew, or that is damaged: it is derived."""
        try:
            table.verify()
        except VectorIndexUnavailable:
            raise
        except VectorIndexError as error:
            log.error("%s. It is dropped and made anew from its topic", error)
            from_scratch = True
        if from_scratch:
            table.drop()

    async def _place(self) -> None:
        """Take all partitions: the index's lock, not the group, keeps a second indexer out.

        What has no table is read from the beginning, and that is committed before anything is
        written: a crash half way must not leave part of a table with the offsets of a whole one.
        """
        partitions = {topic: self._partitions(topic) for topic in TOPICS}
        everything = [one for found in partitions.values() for one in found]
        self._client.assign(everything)
        self._ends = await self._asked(self._client.end_offsets, everything)
        await self._note_reported()
        self._metrics.release_lag.labels(self.release_id).set(0)
        for topic, mine in partitions.items():
            if not await asyncio.to_thread(self._tables[topic].exists):
                beginnings = await self._asked(self._client.beginning_offsets, mine)
                for partition, offset in beginnings.items():
                    self._client.seek(partition, offset)
                await self._asked(self._client.commit, beginnings)

    async def _asked(self, call: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        return await until_answered(f"placing {self.release_id}", partial(call, *arguments))

    def _partitions(self, topic: str) -> list[TopicPartition]:
        count = TOPIC_SPECS[topic].partition_count(self._settings)
        return [TopicPartition(self._settings.topic(topic), number) for number in range(count)]

    async def _note_reported(self) -> None:
        committed = {
            place: await self._asked(self._client.committed, place) or 0 for place in self._ends
        }
        self._shared.rejects.reported_until(
            {place: min(offset, self._ends[place]) for place, offset in committed.items()}
        )

    async def _step(self, stop: asyncio.Event) -> None:
        self._turned = time.monotonic()
        records = await self._next_batch(stop)
        if records:
            # 1. rows durable and visible  2. dead letters acknowledged  3. committed
            for topic in TOPICS:
                await self._write(topic, records, stop)
            self._shared.rejects.passed(records)
            await self._commit()
            self._observe_lag(records)
        await self._look_whether_caught_up()
        for table in self._tables.values():
            if table.due():
                await self._until_done(table.optimize, stop)
        await self._verify_when_due()

    async def _verify_when_due(self) -> None:
        """Of a table that nothing is written to, nobody else would notice that it is gone."""
        if self._turned - self._verified >= VERIFY_EVERY_S:
            self._verified = self._turned
            for table in self._tables.values():
                await asyncio.to_thread(table.verify)

    async def _until_done(self, work: Callable[[], None], stop: asyncio.Event) -> None:
        """Do it again for as long as the machine refuses, as while a disk is full."""
        while True:
            try:
                async with self._shared.writing:
                    await asyncio.to_thread(work)
            except VectorIndexUnavailable as error:
                if stop.is_set():
                    raise
                if self.problem is None:
                    log.error("%s; trying again until then", error)
                self.problem = str(error)
                await asyncio.sleep(AGAIN_S)
            else:
                if self.problem is not None:
                    log.info("release %s: its tables are written again", self.release_id)
                self.problem = None
                return

    async def _next_batch(self, stop: asyncio.Event) -> list[ConsumerRecord]:
        """Up to micro_batch records, or what came within the linger of the first."""
        limits = self._settings.index
        batch: list[ConsumerRecord] = []
        began = time.monotonic()
        while len(batch) < limits.micro_batch and not stop.is_set():
            room = limits.micro_batch - len(batch)
            found = await self._client.getmany(timeout_ms=POLL_MS, max_records=room)
            if not batch:
                began = time.monotonic()
            batch += [record for records in found.values() for record in records]
            if not batch or time.monotonic() - began >= limits.linger_s:
                break
        return batch

    async def _write(
        self, topic: str, batch: Sequence[ConsumerRecord], stop: asyncio.Event
    ) -> None:
        records = [one for one in batch if one.topic == self._settings.topic(topic)]
        decoded = [(one, attempted(one, partial(self._change, topic, one))) for one in records]
        refused = [(record, why) for record, why in decoded if isinstance(why, Rejected)]
        changes = [(record, what) for record, what in decoded if isinstance(what, Change)]
        refused += await self._put(topic, changes, stop) if changes else []
        for record, why in refused:
            await self._shared.rejects.report(topic, record, why)
        if self._serves:
            self._observe_latency(topic, [record for record, _ in changes])

    async def _put(
        self, topic: str, changes: Sequence[Placed], stop: asyncio.Event
    ) -> list[tuple[Record, Rejected]]:
        """Write the changes together; if that fails, each alone. Returns those that fail."""
        table, asked = self._tables[topic], [change for _, change in changes]
        try:
            await self._until_done(lambda: table.write(asked), stop)
        except Exception as error:  # noqa: BLE001 (the last resort)
            why = failure(error)
            if len(changes) > 1:
                alone = [await self._put(topic, [one], stop) for one in changes]
                return list(chain.from_iterable(alone))
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
            await self._client.commit()
        except KafkaError as error:  # what is read again after a restart is written by id
            log.warning("offsets not committed, the next commit includes them: %s", error)

    def _observe_lag(self, records: Sequence[ConsumerRecord]) -> None:
        reached = {TopicPartition(one.topic, one.partition): one.offset + 1 for one in records}
        for place, position in reached.items():
            end = readable_end(self._client, place) or position
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
            if await self._client.position(partition) < self._ends[partition]:
                return False
        return True
