"""The Faust table `histories`, written in batches from anywhere in the tracker.

Faust's own `table[key] = value` costs about 100 µs, works only inside a stream's iteration and
sends one message per write. This subclass keeps what Faust's tables are good at (RocksDB per
partition, changelog topic, recovery, rebalancing) and replaces the write: records of a batch go
into RocksDB at once, and into an outbox that one task sends in order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import faust
from aiokafka import AIOKafkaProducer
from faust.types import TP
from rocksdict import Rdict, WriteBatch

from streams.metrics import TrackerMetrics
from streams.tracker.outbox import Outbox

Records = Iterable[tuple[bytes, bytes | None]]
OnAssigned = Callable[[set[int]], Awaitable[None]]


class StateTable(faust.Table):
    """Bytes → bytes, addressed by partition."""

    outbox: Outbox
    metrics: TrackerMetrics
    on_assigned: OnAssigned
    _gathered: dict[int, WriteBatch] | None = None

    def connect(
        self, producer: AIOKafkaProducer, metrics: TrackerMetrics, on_assigned: OnAssigned
    ) -> None:
        """Name the producer of the changelog and whom to tell of recovered partitions."""
        self.outbox = Outbox(self.changelog_topic.get_topic_name(), producer, self._persisted)
        self.metrics, self.on_assigned = metrics, on_assigned

    def read(self, partition: int, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        value: bytes | None = self._db(partition).get(key)
        return value

    def scan(
        self, partition: int, prefix: bytes, after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key begins with `prefix`, in order of key.

        With `after`, only those whose key is greater than `prefix + after`.
        """
        begin = prefix + after + b"\0" if after else prefix  # the least key that is greater
        for key, value in self._db(partition).items(from_key=begin):
            if not key.startswith(prefix):
                return
            yield key, value

    def write(self, partition: int, records: Records) -> None:
        """Make the records durable here at once, all or none, and due for the changelog."""
        gathered = self._gathered
        batch = gathered.get(partition) if gathered is not None else None
        if batch is None:
            batch = WriteBatch(raw_mode=True)
        for key, value in records:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
            self.outbox.put(partition, key, value)
        if gathered is None:
            self._db(partition).write(batch)
        else:
            gathered[partition] = batch

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written in this block goes into RocksDB at its end, in one write per partition.

        For blocks without an await, which read no record that they have written.
        """
        self._gathered = {}
        try:
            yield
        finally:
            gathered, self._gathered = self._gathered, None
            for partition, batch in gathered.items():
                self._db(partition).write(batch)

    async def flushed(self) -> None:
        """Wait until all that was written before this call is in the changelog."""
        await self.outbox.flushed()

    def _persisted(self, offsets: dict[int, int], size: int) -> None:
        """Note in RocksDB up to where of the changelog it holds; recovery starts there."""
        self.metrics.changelog_bytes.inc(size)
        for partition, offset in offsets.items():
            with suppress(KeyError):  # the partition was revoked meanwhile
                self.data._dbs[partition].put(self.data.offset_key, str(offset).encode())

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Faust calls this when the assigned partitions' state is complete."""
        await super().on_recovery_completed(active_tps, standby_tps)
        topic = self.changelog_topic.get_topic_name()
        await self.on_assigned({tp.partition for tp in active_tps if tp.topic == topic})

    def _db(self, partition: int) -> Rdict:
        return self.data._db_for_partition(partition)  # Faust has no public door to it
