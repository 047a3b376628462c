"""The events that are raced over: seeded, and appended to Kafka in ready-made batches."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer

from models.schemas import Interaction
from models.settings import Settings
from streams.codec import partition_for
from streams.kafka.clients import client_options

SEED: Final = 20260101
FIRST_TIME: Final = 1_767_225_600_000  # 2026-01-01, epoch ms
STEP_MS: Final = 1_000
TYPES: Final = {"view": 55, "click": 20, "cart": 8, "purchase": 14, "rating": 2, "cancel": 1}
BATCH_BYTES: Final = 400_000


class LoadEvent(NamedTuple):
    """One record of topic interactions."""

    key: bytes
    value: bytes


def events(
    count: int, users: int, items: Sequence[str], *, first: int = 0, seed: int = SEED
) -> list[LoadEvent]:
    """`count` events, of a random user each; event ids and times go on from number `first`."""
    chance = random.Random(f"{seed}:{first}")
    people = [f"user-{chance.randrange(users):05d}" for _ in range(count)]
    return events_of(people, items, first=first, seed=seed)


def events_of(
    people: Iterable[str], items: Sequence[str], *, first: int = 0, seed: int = SEED
) -> list[LoadEvent]:
    """One event of each of `people`, in order."""
    chance = random.Random(f"{seed}:{first}:what")
    kinds = chance.choices(list(TYPES), list(TYPES.values()), k=1_024)
    return [
        _event(first + place, user, chance.choice(items), kinds[(first + place) % len(kinds)])
        for place, user in enumerate(people)
    ]


def _event(number: int, user: str, item: str, kind: str) -> LoadEvent:
    made = Interaction.model_validate(
        {
            "event_id": f"{number:08d}-{user}",
            "user_id": user,
            "item_id": item,
            "type": kind,
            "timestamp": FIRST_TIME + number * STEP_MS,
            "rating": 4.0 if kind == "rating" else None,
            "quantity": 2.0 if kind == "purchase" else None,
        }
    )
    return LoadEvent(user.encode(), made.to_json())


class Burst:
    """Events packed into record batches beforehand, so that to send them costs next to nothing.

    What is measured afterwards is the readers, who have the processor to themselves.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic("interactions")
        self._partitions = settings.kafka.partitions
        self._producer = AIOKafkaProducer(
            **client_options(settings), acks="all", max_batch_size=BATCH_BYTES
        )

    async def __aenter__(self) -> Burst:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    def pack(self, given: Iterable[LoadEvent]) -> list[tuple[int, object]]:
        """(partition, record batch) pairs, partitions taking turns."""
        by_partition: dict[int, list[LoadEvent]] = defaultdict(list)
        for event in given:
            by_partition[partition_for(event.key, self._partitions)].append(event)
        packed = [
            (place, partition, batch)
            for partition, found in by_partition.items()
            for place, batch in enumerate(self._batches(found))
        ]
        return [(partition, batch) for _, partition, batch in sorted(packed, key=lambda p: p[:2])]

    def _batches(self, found: list[LoadEvent]) -> list[object]:
        batches = [self._producer.create_batch()]
        for event in found:
            if batches[-1].append(key=event.key, value=event.value, timestamp=None) is None:
                batches[-1].close()
                batches.append(self._producer.create_batch())
                batches[-1].append(key=event.key, value=event.value, timestamp=None)
        batches[-1].close()
        return batches

    async def send(self, packed: list[tuple[int, object]]) -> None:
        """Append all of it and await the broker's acknowledgement."""
        sent = [
            await self._producer.send_batch(batch, self._topic, partition=partition)
            for partition, batch in packed
        ]
        for acknowledgement in sent:
            await acknowledgement
