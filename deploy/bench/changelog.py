"""Bytes of state that the tracker writes to its changelog topic per event."""

from __future__ import annotations

import asyncio
import time
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.bench.bench_broker import Ground
from deploy.bench.live import Live, live_tracker, people
from deploy.bench.rows import Figure, below
from models.errors import StackError
from models.settings import Settings
from streams.kafka.clients import consumer

AIM_BYTES: Final = 2_000
USERS: Final = 100
PER_SECOND: Final = 100.0  # each user once a second: no two events share a write
BUDGET: Final = {"calls_per_minute": 6_000.0, "burst_calls": 200.0}  # nobody waits for a request
QUIET_S: Final = 2.0
LAST_LISTS_S: Final = 1.5  # a user's list may wait a second for its turn
QUIET_WITHIN_S: Final = 120.0

Ends = dict[TopicPartition, int]


class TopicGrowth(NamedTuple):
    """What came into a topic."""

    records: int
    size: int  # bytes of keys and values


def changelog(ground: Ground) -> list[Figure]:
    """At histories of 20 and 500 interactions, one event at a time, lists served meanwhile."""
    count = 200 if ground.quick else 1_500
    return [asyncio.run(_bytes_per_event(ground, history, count)) for history in (20, 500)]


async def _bytes_per_event(ground: Ground, history: int, count: int) -> Figure:
    async with live_tracker(ground, trigger=BUDGET) as live:
        await live.preload(people(USERS), history)
        before = await _when_quiet(live.settings)
        await _pace(live, count)
        written = await read_between(live.settings, before, await _ends(live.settings))
    note = (
        f"{written.records / count:.2f} records an event: the head, again when a list or a "
        f"request was sent, and the partition's clock; {PER_SECOND:.0f} events/s of {USERS} users"
    )
    name = f"changelog at histories of {history}"
    return below(name, [written.size / count], AIM_BYTES, "bytes/event", note)


async def _pace(live: Live, count: int) -> None:
    done = sum(live.workers.counts())
    await live.pace(live.next_events(people(USERS), count), PER_SECOND)
    await live.workers.until(done + count)
    await asyncio.sleep(LAST_LISTS_S)


def _partitions(settings: Settings) -> list[TopicPartition]:
    topic = f"{settings.kafka.prefix}palate-tracker-histories-changelog"
    return [TopicPartition(topic, number) for number in range(settings.kafka.partitions)]


async def _ends(settings: Settings) -> Ends:
    async with consumer(settings, (), None) as reader:
        found: Ends = await reader.end_offsets(_partitions(settings))
    return found


async def _when_quiet(settings: Settings) -> Ends:
    """The changelog's ends once nothing has come for two seconds."""
    deadline, ends, since = time.monotonic() + QUIET_WITHIN_S, Ends(), time.monotonic()
    while time.monotonic() < since + QUIET_S:
        found = await _ends(settings)
        if found != ends:
            ends, since = found, time.monotonic()
        if time.monotonic() > deadline:
            raise StackError(f"the changelog still grows after {QUIET_WITHIN_S:.0f} s")
        await asyncio.sleep(0.2)
    return ends


async def read_between(settings: Settings, begins: Ends, ends: Ends) -> TopicGrowth:
    """Count the records between two sets of offsets, by reading them."""
    async with consumer(settings, (), None) as reader:
        reader.assign(list(ends))
        for place, offset in begins.items():
            reader.seek(place, offset)
        records = size = 0
        while not await _at(reader, ends):
            for batch in (await reader.getmany(timeout_ms=200)).values():
                inside = [r for r in batch if r.offset < ends[TopicPartition(r.topic, r.partition)]]
                records += len(inside)
                size += sum(len(r.key or b"") + len(r.value or b"") for r in inside)
    return TopicGrowth(records, size)


async def _at(reader: AIOKafkaConsumer, ends: Ends) -> bool:
    for place, end in ends.items():
        if await reader.position(place) < end:
            return False
    return True
