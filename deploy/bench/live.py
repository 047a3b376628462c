"""A tracker with the sample's catalogue, ready to be sent events at a pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer

from deploy.bench.bench_broker import Ground, make_topics
from deploy.bench.catalogue import item_ids, lay_out
from deploy.bench.load import Burst, LoadEvent, events_of
from deploy.bench.race import Contestant, Workers, start
from deploy.stack import Role, readiness
from models.errors import StackError
from models.settings import Settings
from streams.kafka.clients import producer

TRACKER: Final = Contestant("tracker", "deploy.bench.contestants.tracker")
READY_WITHIN_S: Final = 120.0


class Sent(NamedTuple):
    """One event on the broker."""

    user: bytes
    partition: int
    offset: int
    at: float  # monotonic seconds, just before it was handed to the client


@dataclass
class Live:
    """One tracker worker that serves."""

    settings: Settings
    workers: Workers
    burst: Burst
    sent: int = 0  # events so far; numbers the next ones

    def next_events(self, people: Sequence[str], count: int) -> list[LoadEvent]:
        """`count` events of `people` in turns, later than all before."""
        found = events_of(islice(cycle(people), count), item_ids(), first=self.sent)
        self.sent += count
        return found

    async def preload(self, people: Sequence[str], each: int) -> None:
        """Give all of `people` `each` events and wait until they are applied."""
        done = sum(self.workers.counts())
        await self.burst.send(self.burst.pack(self.next_events(people, each * len(people))))
        await self.workers.until(done + each * len(people))

    async def pace(self, given: Sequence[LoadEvent], per_second: float) -> list[Sent]:
        """Send events one by one, evenly in time; returns when all are on the broker."""
        async with producer(self.settings, linger_ms=0) as sender:
            return await send_evenly(sender, self.settings, given, per_second)


def people(count: int) -> list[str]:
    """User ids."""
    return [f"user-{number:05d}" for number in range(count)]


@asynccontextmanager
async def live_tracker(ground: Ground, **overrides: Any) -> AsyncIterator[Live]:
    """A tracker that is ready, on topics of its own; killed afterwards."""
    settings = ground.settings(**overrides)
    await make_topics(settings)
    await lay_out(settings)
    with ExitStack() as running:
        workers = start(ground, settings, TRACKER, running)
        await ready(settings)
        async with Burst(settings) as burst:
            yield Live(settings, workers, burst)


async def ready(settings: Settings) -> None:
    """Return once the tracker serves."""
    metrics = settings.metrics
    role = Role("tracker", "", f"http://{metrics.host}:{metrics.tracker_port}")
    deadline = time.monotonic() + READY_WITHIN_S
    while reason := await asyncio.to_thread(readiness, role):
        if time.monotonic() > deadline:
            raise StackError(f"the tracker is not ready after {READY_WITHIN_S:.0f} s: {reason}")
        await asyncio.sleep(0.05)


async def send_evenly(
    sender: AIOKafkaProducer, settings: Settings, given: Sequence[LoadEvent], per_second: float
) -> list[Sent]:
    """Send events one by one, evenly in time; where and when each was sent."""
    topic, begun = settings.topic("interactions"), time.monotonic()
    waiting = []
    for place, event in enumerate(given):
        await asyncio.sleep(max(0.0, begun + place / per_second - time.monotonic()))
        at = time.monotonic()
        waiting.append((event.key, at, await sender.send(topic, event.value, event.key)))
    found = [(user, at, await acknowledged) for user, at, acknowledged in waiting]
    return [Sent(user, record.partition, record.offset, at) for user, at, record in found]
