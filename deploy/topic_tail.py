"""Reading topics from now on, without a consumer group, for the commands that show them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer

from models.settings import Settings
from streams.kafka.clients import consumer
from streams.kafka.connectivity import answers_within, check_reachable


@asynccontextmanager
async def from_now(settings: Settings, topics: Iterable[str]) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that stands at the end of all partitions of `topics`.

    Raises StackError if Kafka does not answer.
    """
    reader = consumer(settings, topics, None, auto_offset_reset="latest")
    try:
        await check_reachable(settings, settings.kafka.answer_within_s)
        async with answers_within(settings, settings.kafka.answer_within_s):
            await reader.start()
            for partition in reader.assignment():
                await reader.position(partition)  # look the end up now, not at the first poll
        yield reader
    finally:
        await reader.stop()
