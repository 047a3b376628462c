"""From an event's sending to the arrival of a recommendation that knows it."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import orjson
from aiokafka import AIOKafkaConsumer

from deploy.bench.bench_broker import Ground
from deploy.bench.catalogue import sample_items
from deploy.bench.live import Live, Sent, live_tracker, people
from deploy.bench.rows import Figure, below, median_row
from streams.kafka.clients import consumer

PER_SECOND: Final = 200.0
USERS: Final = 1_000
HISTORY: Final = 20
WARM_UP_S: Final = 3.0
LATE_S: Final = 10.0  # after the last event, waited for its recommendation


LatencyRuns = list[list[float]]  # seconds of each event, by run


class Arrived(NamedTuple):
    """One recommendation."""

    user: bytes
    applied: int
    at: float  # monotonic seconds


def latency(ground: Ground) -> list[Figure]:
    """200 events/s of 1,000 users, in turns (nobody twice a second) and at random."""
    seconds = 3 if ground.quick else 40
    in_turns, at_random = asyncio.run(_measure(ground, int(seconds * PER_SECOND)))
    note = (
        f"{PER_SECOND:.0f} events/s for {seconds} s, {USERS} users of {HISTORY} and more events in "
        f"turns, catalogue of {len(sample_items())} items; sent by one client, read by another"
    )
    limited = f"as above, random users: a list per user and second at most; {_share_limited()}"
    return [
        below("event → recommendation, p50", percentiles(in_turns, 50), 50, "ms", note),
        below("event → recommendation, p99", percentiles(in_turns, 99), 200, "ms", note),
        median_row("event → recommendation, p50, random users", percentiles(at_random, 50), "ms"),
        median_row(
            "event → recommendation, p99, random users", percentiles(at_random, 99), "ms", limited
        ),
    ]


def _share_limited() -> str:
    return f"about {PER_SECOND / USERS:.0%} of events come within a second of the user's last"


def percentiles(runs: Sequence[Sequence[float]], percent: float) -> list[float]:
    """Of each run, in milliseconds."""
    return [percentile(latencies_s, percent) for latencies_s in runs]


def percentile(latencies_s: Sequence[float], percent: float) -> float:
    """In milliseconds."""
    return float(np.percentile(latencies_s, percent)) * 1000


async def _measure(ground: Ground, count: int) -> tuple[LatencyRuns, LatencyRuns]:
    everyone = people(USERS)
    chance = random.Random(1)
    async with live_tracker(ground) as live:
        await live.preload(everyone, HISTORY)
        await latencies(live, everyone, int(WARM_UP_S * PER_SECOND))
        in_turns, at_random = [], []
        for _ in range(ground.runs):
            in_turns.append(await latencies(live, everyone, count))
            at_random.append(await latencies(live, chance.choices(everyone, k=count), count))
        return in_turns, at_random


async def latencies(live: Live, whose: Sequence[str], count: int) -> list[float]:
    """Seconds of `count` events. Raises TimeoutError if a list is missing ten seconds after."""
    arrived: list[Arrived] = []
    options = {"auto_offset_reset": "latest", "fetch_max_wait_ms": 100}
    async with consumer(live.settings, ("recommendations",), None, **options) as reader:
        await reader.seek_to_end()
        reading = asyncio.create_task(_read(reader, arrived))
        sent = await live.pace(live.next_events(whose, count), PER_SECOND)
        deadline = time.monotonic() + LATE_S
        while (found := match(sent, arrived)) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    if found is None:
        raise TimeoutError(f"events without a recommendation {LATE_S:.0f} s after the last one")
    return found


async def _read(reader: AIOKafkaConsumer, arrived: list[Arrived]) -> None:
    async for record in reader:
        at = time.monotonic()
        applied = orjson.loads(record.value)["applied_offset"]
        arrived.append(Arrived(record.key, applied, at))


def match(sent: Sequence[Sent], arrived: Sequence[Arrived]) -> list[float] | None:
    """Seconds from each event to its user's first list that has it applied; None if one lacks."""
    by_user: dict[bytes, list[Arrived]] = defaultdict(list)
    for one in arrived:
        by_user[one.user].append(one)
    for lists in by_user.values():
        lists.sort(key=lambda one: one.applied)
    found = []
    for event in sent:
        lists = by_user[event.user]
        place = bisect_left(lists, event.offset, key=lambda one: one.applied)
        if place == len(lists):
            return None
        found.append(min(one.at for one in lists[place:]) - event.at)
    return found
