"""Going back to a place in a topic beside the group that consumes it."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from models.settings import Settings
from streams.kafka.clients import consumer, start_client, until_answered


class Rereader:
    """A consumer without a group, connected at first use. One reading at a time."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self._settings, self._options = settings, options
        self._consumer: AIOKafkaConsumer | None = None

    async def at(self, place: TopicPartition, offset: int) -> AIOKafkaConsumer:
        """The consumer, assigned to this partition alone and about to read from `offset`."""
        reader = await self._connected()
        reader.assign([place])
        reader.seek(place, offset)
        return reader

    async def range(self, place: TopicPartition) -> tuple[int, int]:
        """The first offset that a partition holds, and the one after its last."""
        reader = await self._connected()

        async def ask() -> tuple[int, int]:
            beginnings = await reader.beginning_offsets([place])
            return beginnings[place], (await reader.end_offsets([place]))[place]

        return await until_answered(f"looking up offsets of {place.topic}", ask)

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = await start_client(
                lambda: consumer(self._settings, (), None, **self._options)
            )
        return self._consumer

    async def stop(self) -> None:
        """Leave the broker; may be called twice."""
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None
