"""Changelog records on their way to Kafka: in order, in batches, until they are acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
Queue = dict[tuple[int, bytes], bytes | None]
OnSent = Callable[[dict[int, int], int], None]  # (last offset by partition, bytes)


class Outbox:
    """One topic's records, sent by one task. Of a key put twice, only the last value is sent."""

    def __init__(self, topic: str, producer: AIOKafkaProducer, on_sent: OnSent) -> None:
        self._topic, self._producer, self._on_sent = topic, producer, on_sent
        self._queue: Queue = {}
        self._put = self._acknowledged = 0
        self._sending: asyncio.Task[None] | None = None

    def put(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Queue one record behind all others."""
        self._queue.pop((partition, key), None)
        self._queue[partition, key] = value
        self._put += 1
        self._ensure_sending()

    async def flushed(self) -> None:
        """Wait until everything put before this call is acknowledged by the broker."""
        due = self._put
        while self._acknowledged < due:
            await asyncio.shield(self._ensure_sending())

    def _ensure_sending(self) -> asyncio.Task[None]:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send_all())
        return self._sending

    async def _send_all(self) -> None:
        while self._queue:
            queue, upto, self._queue = self._queue, self._put, {}
            try:
                await self._send(queue)
                self._acknowledged = upto
            except KafkaError as error:
                log.warning(
                    "changelog %s is not taking records (%r); trying on", self._topic, error
                )
                for address, value in self._queue.items():
                    queue.pop(address, None)
                    queue[address] = value
                self._queue = queue
                await asyncio.sleep(RETRY_S)

    async def _send(self, queue: Queue) -> None:
        waiting = [
            await self._producer.send(self._topic, value, key, partition=partition)
            for (partition, key), value in queue.items()
        ]
        last: dict[int, int] = {}
        for sent in await asyncio.gather(*waiting):
            last[sent.partition] = max(sent.offset, last.get(sent.partition, -1))
        size = sum(len(key) + len(value or b"") for (_, key), value in queue.items())
        self._on_sent(last, size)
