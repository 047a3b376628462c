"""What stands in a topic, for tests against the real broker."""

from __future__ import annotations

import asyncio

from aiokafka import ConsumerRecord, TopicPartition

from models.settings import Settings
from streams.kafka.clients import consumer
from streams.kafka.read_at import read_whole
from streams.kafka.topics import TOPICS


def records(settings: Settings, topic: str) -> list[ConsumerRecord]:
    """All records of `topic` (without the prefix) now, each partition in order."""
    return asyncio.run(_records(settings, topic))


async def _records(settings: Settings, topic: str) -> list[ConsumerRecord]:
    reader = consumer(settings, (), None)
    await reader.start()
    try:
        count = TOPICS[topic].partition_count(settings)
        partitions = [TopicPartition(settings.topic(topic), n) for n in range(count)]
        return [record for place in partitions async for record in read_whole(reader, place)]
    finally:
        await reader.stop()
