"""A whole topic, read from its beginning and followed: item texts, releases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from models.settings import Settings
from streams.kafka.clients import (
    RETRY_S,
    consumer,
    start_client,
    until_answered,
    worth_another_try,
)
from streams.kafka.consumption import positions_of
from streams.kafka.topics import existing_partitions
from streams.last_resort import attempted
from streams.metrics import RoleMetrics

log = logging.getLogger(__name__)

POLL_MS: Final = 500


class TopicFollower:
    """Reads all partitions of a topic from the beginning, without a group, and follows it.

    `on_record` is called in the order of each partition, also for tombstones (value None). A
    record with which it fails is left out, logged and counted in the role's `metrics`.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        on_record: Callable[[ConsumerRecord], None],
        metrics: RoleMetrics | None = None,
    ) -> None:
        self.settings, self._metrics = settings, metrics
        self.topic = settings.topic(topic)
        self._on_record = on_record
        self._caught_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ends: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Begin to read; waits for the broker and for the topic to exist."""
        partitions = await existing_partitions(self.settings, self.topic)
        self._consumer = await start_client(
            lambda: consumer(self.settings, (), None, max_poll_records=2_000)
        )
        try:
            self._consumer.assign(partitions)
            await self._consumer.seek_to_beginning(*partitions)
            self._ends = await self._end_offsets(partitions)
        except BaseException:
            await self._consumer.stop()
            raise
        self._task = asyncio.create_task(self._follow(), name=f"follow {self.topic}")

    async def caught_up(self) -> None:
        """Return once every record that was there at `start` has been given to `on_record`.

        Raises what made following end, if it has.
        """
        assert self._task is not None, "caught_up before start"
        waiter = asyncio.create_task(self._caught_up.wait())
        await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if not self._caught_up.is_set():
            self._task.result()

    @property
    def not_ready(self) -> str | None:
        """None while caught up and following; else why not (for /readyz)."""
        if self._task is None:
            return f"{self.topic}: not started"
        if self._task.done():
            error = None if self._task.cancelled() else self._task.exception()
            return f"{self.topic}: no longer followed: {error!r}"
        return None if self._caught_up.is_set() else f"{self.topic}: reading from the beginning"

    async def positions(self) -> dict[TopicPartition, int | None]:
        """The next offset to read, of each partition."""
        return await positions_of(self._consumer) if self._task is not None else {}

    async def failed(self) -> None:
        """Wait until following ends, and raise what ended it; for a role to end with."""
        assert self._task is not None, "failed before start"
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop reading; may be called twice."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.stop()

    async def _end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return await until_answered(
            f"reading {self.topic}", lambda: self._consumer.end_offsets(partitions)
        )

    async def _follow(self) -> None:
        failing = False
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=POLL_MS)
                for record in (r for records in batches.values() for r in records):
                    self._take(record)
                if not self._caught_up.is_set() and await self._at_ends():
                    self._caught_up.set()
                failing = False
            except KafkaError as error:
                if not worth_another_try(error):
                    raise
                if not failing:
                    log.warning(
                        "topic %s: %r; reading goes on when Kafka answers", self.topic, error
                    )
                failing = True
                await asyncio.sleep(RETRY_S)

    def _take(self, record: ConsumerRecord) -> None:
        failed = attempted(record, partial(self._on_record, record))
        if failed is not None and self._metrics is not None:
            self._metrics.failed.labels(topic=self.topic).inc()

    async def _at_ends(self) -> bool:
        """By position, not by last record: the last offsets may be markers or compacted away."""
        for partition, end in self._ends.items():
            if await self._consumer.position(partition) < end:
                return False
        return True
