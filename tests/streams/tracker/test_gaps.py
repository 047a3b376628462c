"""What Faust passed over comes from the topic: each record once, in order, in slices."""

from __future__ import annotations

import asyncio
import random

import pytest

from models.settings import Settings
from streams.kafka.clients import producer
from streams.kafka.topics import ensure_topics
from streams.tracker.gaps import GapReader
from streams.tracker.runtime import DeliveredRecord
from tests.conftest import MakeSettings

pytestmark = pytest.mark.service
RECORDS = 1_000  # in each of two partitions, of 4 KiB


@pytest.fixture
def filled(kafka: str, make_settings: MakeSettings) -> Settings:
    """A topic of several fetches (of 1 MiB)."""
    settings = make_settings(kafka={"partitions": 2})
    topic = settings.topic("interactions")

    async def fill() -> None:
        await ensure_topics(settings)
        async with producer(settings) as sender:
            for number in range(RECORDS):
                for partition in (0, 1):
                    await sender.send(topic, value_of(partition, number), partition=partition)
            await sender.flush()

    asyncio.run(fill())
    return settings


def value_of(partition: int, offset: int) -> bytes:
    return f"{partition}/{offset}".encode().ljust(4096)


def test_a_batch_is_completed_in_slices(filled: Settings) -> None:
    chance = random.Random(12)

    async def scenario() -> None:
        gaps = GapReader(filled)
        try:
            for _ in range(12):
                await check(gaps, filled, chance)
        finally:
            await gaps.stop()

    asyncio.run(scenario())


async def check(gaps: GapReader, settings: Settings, chance: random.Random) -> None:
    due = {partition: chance.randrange(RECORDS) for partition in (0, 1)}
    offsets = {
        partition: sorted(
            chance.sample(range(first, RECORDS), chance.randint(1, 1 + (RECORDS - first) // 8))
        )
        for partition, first in due.items()
    }
    delivered = [delivery(settings, p, offset) for p, part in offsets.items() for offset in part]
    found = [rows async for rows in gaps.complete(delivered, due)]
    for partition, part in offsets.items():
        values = [row.value for rows in found for row in rows if row.partition == partition]
        assert values == [value_of(partition, n) for n in range(due[partition], part[-1] + 1)]
    assert all(rows == sorted(rows, key=lambda row: (row.partition, row.offset)) for rows in found)
    read = [sum(row not in delivered for row in rows) for rows in found]
    assert max(read) < 2**20 // 4096  # no more than a fetch at a time


def delivery(settings: Settings, partition: int, offset: int) -> DeliveredRecord:
    topic, value = settings.topic("interactions"), value_of(partition, offset)
    return DeliveredRecord(topic, partition, offset, 0, None, value, ())


def test_a_batch_without_a_gap_stays_together(filled: Settings) -> None:
    delivered = [delivery(filled, p, offset) for p in (0, 1) for offset in range(3, 6)]

    async def scenario() -> list[list[DeliveredRecord]]:
        return [rows async for rows in GapReader(filled).complete(delivered, {0: 3, 1: 3})]

    assert asyncio.run(scenario()) == [delivered]
