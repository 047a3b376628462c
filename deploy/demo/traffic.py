"""What the demo sends: history and the live part, a shopping trip, and bad messages on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from models.errors import StackError
from models.identity import digest
from models.schemas import Interaction, InteractionType
from models.settings import Settings
from streams.importers.survey import Ready

IN_FLIGHT: Final = 2_000
SEND_WITHIN_S: Final = 300.0
HOLD_S: Final = 0.25
Moved = Callable[[int], None]  # so many more were sent


class Bad(NamedTuple):
    """A message that must end as a dead letter, and why."""

    what: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


async def send(
    settings: Settings,
    topic: str,
    messages: Sequence[Ready],
    moved: Moved,
    rate: float = 0.0,
    behind: Callable[[], bool] = lambda: False,
) -> None:
    """Send all and await the broker's acknowledgement; at most `rate` per second if not 0.

    While somebody is `behind`, nothing is sent: event time stands still.
    """
    from streams.kafka.clients import producer

    sender = producer(settings, linger_ms=5)
    await sender.start()
    try:
        waiting: list[Any] = []
        began = time.monotonic()
        for number, message in enumerate(messages):
            ahead = number / rate - (time.monotonic() - began) if rate else 0.0
            if ahead > 0.02:
                await asyncio.sleep(ahead)
            waiting.append(await sender.send(settings.topic(topic), message.value, message.key))
            if len(waiting) >= (IN_FLIGHT if not rate else 50):
                await _settle(waiting, moved)
                began += await _held_back(behind)
        await _settle(waiting, moved)
    finally:
        await sender.stop()


async def _settle(waiting: list[Any], moved: Moved) -> None:
    async with asyncio.timeout(SEND_WITHIN_S):
        await asyncio.gather(*waiting)
    moved(len(waiting))
    waiting.clear()


async def _held_back(behind: Callable[[], bool]) -> float:
    """Wait while somebody is behind; the seconds that it took."""
    began = time.monotonic()
    while behind():
        await asyncio.sleep(HOLD_S)
    return time.monotonic() - began


async def send_bad(settings: Settings, messages: Iterable[Bad]) -> None:
    """Send messages that no producer should send."""
    from streams.kafka.clients import producer

    sender = producer(settings)
    await sender.start()
    try:
        for bad in messages:
            await sender.send_and_wait(
                settings.topic("interactions"), bad.value, bad.key, headers=list(bad.headers)
            )
    finally:
        await sender.stop()


def shopping_trip(user_id: str, item_ids: Sequence[str], begins: int) -> list[Ready]:
    """Somebody looks around and buys: a minute between events, from `begins` (epoch ms)."""
    viewed, clicked, *bought = item_ids
    steps = [(viewed, "view"), (clicked, "click"), (bought[0], "cart")]
    steps += [(item, "purchase") for item in bought]
    trip = []
    for number, (item, kind) in enumerate(steps):
        at = begins + number * 60_000
        event = Interaction(
            event_id=digest("demo", user_id, item, kind, at),
            user_id=user_id,
            item_id=item,
            type=InteractionType(kind),
            timestamp=at,
            session_id=f"demo-{user_id}",
        )
        trip.append(Ready(number + 1, user_id.encode(), event.to_json(), at))
    return trip


def event_id(message: Ready) -> str:
    """Of an interaction that is to be sent."""
    return str(orjson.loads(message.value)["event_id"])


def action(message: Ready, texts: Mapping[str, str]) -> str:
    """What an interaction does to which item, in words."""
    event = orjson.loads(message.value)
    return f"{event['type']:<9} {texts.get(event['item_id'], event['item_id'])}"


def bad_messages(user_id: str, item_id: str, at: int) -> list[Bad]:
    """One of each kind of damage that producers do. `at`: a sound event time (epoch ms)."""
    from streams.codec import FORWARDED_HEADER, MAX_VALUE_BYTES

    key = user_id.encode()
    sound = {
        **{"event_id": "bad", "user_id": user_id, "item_id": item_id},
        **{"type": "purchase", "timestamp": at},
    }

    def with_(**changes: Any) -> bytes:
        return orjson.dumps({**sound, **changes})

    return [
        Bad("not JSON", key, b"<xml>a purchase</xml>"),
        Bad("a field is missing", key, orjson.dumps({"user_id": user_id, "type": "purchase"})),
        Bad("an unknown type", key, with_(type="stolen")),
        Bad("from the year 2090", key, with_(timestamp="2090-01-01T00:00:00Z")),
        Bad("a null byte in the item id", key, with_(item_id="a\0b")),
        Bad("over a megabyte", key, with_(review="x" * (MAX_VALUE_BYTES + 1))),
        Bad("a wrong key, twice", b"someone else", with_(), ((FORWARDED_HEADER, b"1"),)),
    ]


def choose_theme(
    titles: dict[str, str], sold: dict[str, int], known: set[str], themes: Sequence[str], count: int
) -> tuple[str, list[str]]:
    """The first theme of which the customer knows least, and its best-selling unknown items.

    `titles`: item id → title; `sold`: item id → times bought; `known`: items of the customer.
    Raises StackError if no theme has so many unknown items.
    """
    candidates = []
    for theme in themes:
        matching = [item for item, title in titles.items() if theme in title.upper().split()]
        fresh = sorted((i for i in matching if i not in known), key=lambda i: (-sold.get(i, 0), i))
        if len(fresh) >= count:
            candidates.append((len(matching) - len(fresh), theme, fresh[:count]))
    if not candidates:
        raise StackError(f"the sample has no theme with {count} items that are new to the customer")
    _, theme, items = min(candidates, key=lambda found: found[0])
    return theme, items
