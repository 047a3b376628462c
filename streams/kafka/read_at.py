"""Reading from a place in a topic, or all of a partition, beside the group that consumes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from models.settings import Settings
from streams.kafka.clients import consumer, start_client, until_answered

_POLL_MS: Final = 500


async def read_whole(
    reader: AIOKafkaConsumer, place: TopicPartition
) -> AsyncIterator[ConsumerRecord]:
    """The records of a partition from its beginning to where it ends now; assigns it alone."""
    reader.assign([place])
    await reader.seek_to_beginning(place)
    end = (await reader.end_offsets([place]))[place]
    while await reader.position(place) < end:
        for records in (await reader.getmany(timeout_ms=_POLL_MS)).values():
            for record in records:
                yield record


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
