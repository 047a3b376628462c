"""Following topics from now on, without a consumer group, for the commands that show them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from models.schemas import Item
from models.settings import Settings
from models.text import item_text
from streams.codec import Rejected, Removal, decode_keyed
from streams.kafka.clients import consumer
from streams.kafka.connectivity import answers_within, check_reachable
from streams.kafka.topic_follower import TopicFollower


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


class ItemTexts:
    """Item id → short text, kept up to date from topic `items`."""

    def __init__(self, settings: Settings) -> None:
        self._partitions = settings.kafka.partitions
        self._texts: dict[str, str] = {}
        self._follower = TopicFollower(settings, "items", self._on_record)

    def _on_record(self, record: ConsumerRecord[Any, Any]) -> None:
        item = decode_keyed(record, Item, self._partitions)
        if isinstance(item, Removal):
            self._texts.pop(item.id, None)
        elif not isinstance(item, Rejected):
            self._texts[item.item_id] = item_text(item)

    async def __aenter__(self) -> ItemTexts:
        await self._follower.start()
        await self._follower.caught_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._follower.stop()

    def __getitem__(self, item_id: str) -> str:
        """The item's text, or its id while it is unknown."""
        return self._texts.get(item_id, item_id)
