"""Profile requests of the sample's customers, as the tracker makes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import pyarrow.parquet as pq

from deploy.bench.catalogue import SAMPLE, sample_items
from models.schemas import Interaction, ProfileRequest
from models.settings import Settings
from models.text import item_text
from streams.codec import partition_for
from streams.tracker.profile_requests import build_request
from streams.tracker.state import Head, User
from streams.triggers import Due
from streams.windows import EMPTY, advance, entry_of

LEAST_EVENTS: Final = 40


def requests(settings: Settings, count: int, suffix: str = "") -> list[ProfileRequest]:
    """Requests of `count` customers with rich histories; `suffix` renames the customers only."""
    texts = {item.item_id: item_text(item) for item in sample_items()}
    found = []
    for name, events in _customers(count):
        user = _user(name + suffix, events, settings.windows.history_cap)
        partition = partition_for(user.user_id.encode(), settings.kafka.partitions)
        as_of = events[-1].timestamp
        found.append(
            build_request(
                *(user, partition, Due(1.0, "first"), as_of, as_of, settings),
                lambda item: texts.get(item, ""),
            )
        )
    return found


def _user(name: str, events: list[Interaction], cap: int) -> User:
    history = EMPTY
    for offset, event in enumerate(events):
        history = advance(history, entry_of(event, offset), cap)
    return User(name, Head(applied=len(events) - 1), history)


def _customers(count: int) -> Iterator[tuple[str, list[Interaction]]]:
    by_user: dict[str, list[Interaction]] = defaultdict(list)
    for number, row in enumerate(pq.read_table(SAMPLE / "interactions.parquet").to_pylist()):
        by_user[row["user_id"]].append(
            Interaction(
                event_id=f"e{number}",
                user_id=row["user_id"],
                item_id=row["item_id"],
                type=row["event_type"],
                timestamp=row["timestamp"] * 1000,
                quantity=row["quantity"],
            )
        )
    rich = (pair for pair in sorted(by_user.items()) if len(pair[1]) >= LEAST_EVENTS)
    for (name, events), _ in zip(rich, range(count), strict=False):
        yield name, sorted(events, key=lambda event: event.timestamp)
