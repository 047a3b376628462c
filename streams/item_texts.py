"""Short texts of all items, kept up to date from topic `items`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from models.schemas import Item
from models.settings import Settings
from models.text import item_text
from streams.codec import Record, Rejected, Removal, decode_keyed
from streams.kafka.topic_follower import TopicFollower


class ItemTexts:
    """Item id → short text; give it the records of topic `items` in their order."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._texts: dict[str, str] = {}

    def on_record(self, record: Record) -> None:
        """Take in one record of topic `items`; what cannot be read, the indexer reports."""
        item = decode_keyed(record, Item, self._partitions)
        if isinstance(item, Removal):
            self._texts.pop(item.id, None)
        elif not isinstance(item, Rejected):
            self._texts[item.item_id] = item_text(item)

    def text_of(self, item_id: str) -> str:
        """The item's short text; empty while it is unknown."""
        return self._texts.get(item_id, "")

    def matching(self, words: tuple[str, ...]) -> frozenset[str]:
        """Items whose text contains one of the (forbidden) words."""
        if not words:
            return frozenset()
        folded = [word.casefold() for word in words]
        return frozenset(
            item for item, text in self._texts.items() if any(w in text.casefold() for w in folded)
        )

    def __len__(self) -> int:
        return len(self._texts)


@asynccontextmanager
async def followed_texts(settings: Settings) -> AsyncIterator[ItemTexts]:
    """All texts as of now, which go on being kept up to date."""
    texts = ItemTexts(settings.kafka.partitions)
    follower = TopicFollower(settings, "items", texts.on_record)
    await follower.start()
    try:
        await follower.caught_up()
        yield texts
    finally:
        await follower.stop()
