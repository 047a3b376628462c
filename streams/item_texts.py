"""Short texts of all items, kept up to date from topic `items`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from models.profile.evidence import Forbidden, stemmed
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
        self._stemmed: dict[str, str] = {}  # the same texts, as forbidden words are looked for

    def on_record(self, record: Record) -> None:
        """Take in one record of topic `items`; what cannot be read, the indexer reports."""
        item = decode_keyed(record, Item, self._partitions)
        if isinstance(item, Removal):
            self._texts.pop(item.id, None)
            self._stemmed.pop(item.id, None)
        elif not isinstance(item, Rejected):
            self._texts[item.item_id] = text = item_text(item)
            self._stemmed[item.item_id] = stemmed(text)

    def text_of(self, item_id: str) -> str:
        """The item's short text; empty while it is unknown."""
        return self._texts.get(item_id, "")

    def matching(self, words: tuple[str, ...]) -> frozenset[str]:
        """Items whose text says one of the forbidden words or phrases, compared as in profiles."""
        if not words:
            return frozenset()
        forbidden = Forbidden(words)
        said = self._stemmed.items()
        return frozenset(item for item, text in said if forbidden.found_in_stemmed(text))

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
