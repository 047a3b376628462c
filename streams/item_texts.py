"""Short texts of all items, kept up to date from topic `items`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from models.profile.evidence import Forbidden, stemmed
from models.schemas import Item
from models.settings import Settings
from models.text import item_text
from streams.codec import Record, Rejected, Removal, decode_keyed
from streams.kafka.topic_follower import TopicFollower

REMEMBERED: Final = 1_000  # words and phrases


class ItemTexts:
    """Item id → short text; give it the records of topic `items` in their order."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._texts: dict[str, str] = {}
        self._stemmed: dict[str, str] = {}  # the same texts, as forbidden words are looked for
        self._hidden: dict[str, frozenset[str]] = {}  # forbidden word or phrase → items, as of now

    def on_record(self, record: Record) -> None:
        """Take in one record of topic `items`; what cannot be read, the indexer reports."""
        item = decode_keyed(record, Item, self._partitions)
        self._hidden.clear()
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
        return frozenset().union(*map(self._hidden_by, words))

    def _hidden_by(self, word: str) -> frozenset[str]:
        """Kept until a text changes: it is asked for with every list of the user."""
        if word not in self._hidden:
            if len(self._hidden) >= REMEMBERED:
                self._hidden.clear()
            forbidden, said = Forbidden([word]), self._stemmed.items()
            self._hidden[word] = frozenset(
                i for i, text in said if forbidden.found_in_stemmed(text)
            )
        return self._hidden[word]

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
