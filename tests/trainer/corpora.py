"""Small data for the trainer's tests: interactions in memory as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from models.schemas import Interaction, Item
from models.settings import Settings, load_settings
from trainer.data.corpus import Corpus, read_corpus
from trainer.data.sources import COLUMNS
from trainer.data.splits import SplitProtocol

DAY = 86_400_000
START = 1_300_000_000_000


@dataclass
class MemorySource:
    """InteractionSource over a list; the place in the list is the offset."""

    events: Sequence[Interaction]
    catalogue: Sequence[Item] = field(default_factory=tuple)
    name: str = "memory"

    def partitions(self) -> list[int]:
        return [0] if self.events else []

    def next_offsets(self) -> Mapping[int, int]:
        return {0: len(self.events)} if self.events else {}

    def interactions(self, partition: int, columns: Sequence[str] = COLUMNS.names) -> pa.Table:
        rows = [
            {**event.model_dump(mode="json"), "timestamp": event.timestamp, "offset": offset}
            for offset, event in enumerate(self.events)
        ]
        return pa.Table.from_pylist(rows, schema=COLUMNS).select(list(columns))

    def items(self) -> Iterator[Item]:
        yield from self.catalogue


def bought(user: str, item: str, day: float, name: str = "", **fields: object) -> Interaction:
    """A purchase `day` days after START."""
    return Interaction.model_validate(
        {
            "event_id": name or f"{user}-{item}-{day}",
            "user_id": user,
            "item_id": item,
            "type": "purchase",
            "timestamp": START + int(day * DAY),
            **fields,
        }
    )


def items(*names: str) -> list[Item]:
    return [Item(item_id=name, title=f"{name} thing") for name in names]


def settings_with(**sessions: object) -> Settings:
    return load_settings(train={"sessions": sessions})


def corpus_of(
    events: Sequence[Interaction],
    catalogue: Sequence[Item],
    settings: Settings | None = None,
    protocol: SplitProtocol = "temporal",
) -> Corpus:
    return read_corpus(MemorySource(events, catalogue), settings or load_settings(), protocol)
