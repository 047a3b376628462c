"""Whether what a role reads is being read: offsets move, or there is nothing to read.

A flag that is set once says nothing about now, and Kafka's client says nothing while a broker is
away. So each role asks the broker every few seconds where its topics end, and compares.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from models.settings import LivenessSettings, Settings
from streams.kafka.clients import consumer, start_client

ASK_EVERY_S: Final = 2.0
ANSWER_WITHIN_S: Final = 4.0

Offsets = Mapping[TopicPartition, int]
Positions = Mapping[TopicPartition, int | None]  # None: assigned, and nothing is fetched of it yet


class _ReadingMark(NamedTuple):
    """Where reading of a partition was when it moved last, or had nothing to read."""

    position: int | None
    since: float


class ConsumerProgress:
    """What the broker's answers say; pure, but for the clock that it is given."""

    def __init__(
        self, limits: LivenessSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits, self._clock = limits, clock
        self._answered = clock()
        self._marks: dict[TopicPartition, _ReadingMark] = {}
        self._ends: Offsets = {}
        self._missing: frozenset[str] = frozenset()

    def missing(self, topics: Iterable[str]) -> None:
        """The broker says that these topics are not there."""
        self._missing = frozenset(topics)

    def answered(self, positions: Positions, ends: Offsets) -> None:
        """The broker says where the partitions end of which `positions` were read so far."""
        now = self._clock()
        self._answered, self._ends, self._missing = now, ends, frozenset()
        self._marks = {
            place: self._mark(place, position, now) for place, position in positions.items()
        }

    def _mark(self, place: TopicPartition, position: int | None, now: float) -> _ReadingMark:
        before = self._marks.get(place)
        unread = position is None or self._ends.get(place, position) != position
        stands = before is not None and before.position == position
        return before if before and stands and unread else _ReadingMark(position, now)

    @property
    def not_ready(self) -> str | None:
        """Why reading cannot be said to go on; None if it does."""
        now = self._clock()
        if self._missing:
            return f"topic {min(self._missing)} is not there: it was deleted while it was read"
        if now - self._answered > self._limits.away_s:
            return "Kafka does not answer"
        standing = (self._standing(*mark, now) for mark in sorted(self._marks.items()))
        return next(filter(None, standing), None)

    def _standing(self, place: TopicPartition, mark: _ReadingMark, now: float) -> str | None:
        where = f"topic {place.topic} partition {place.partition}"
        long = now - mark.since > self._limits.stalled_s
        if mark.position is None:
            return f"{where} is assigned, and nothing of it is fetched" if long else None
        end = self._ends.get(place, mark.position)
        if end < mark.position:
            return f"{where} ends before what was read of it: it was deleted and made anew"
        if end > mark.position and long:
            return f"{where} has records to read, and reading stands still"
        return None


class ConsumptionWatch:
    """Asks the broker about a role's partitions, with a client of its own."""

    def __init__(self, settings: Settings, positions: Callable[[], Awaitable[Positions]]) -> None:
        """`positions`: the next offset to read, of each partition that is being read now."""
        self._settings, self._positions = settings, positions
        self._progress = ConsumerProgress(settings.liveness)

    @property
    def not_ready(self) -> str | None:
        """Why reading cannot be said to go on; None if it does."""
        return self._progress.not_ready

    async def watch(self) -> None:
        """Ask, for ever."""
        client = await start_client(lambda: consumer(self._settings, (), None))
        try:
            while True:
                await self._ask(client)
                await asyncio.sleep(ASK_EVERY_S)
        finally:
            await client.stop()

    async def _ask(self, client: AIOKafkaConsumer) -> None:
        positions: Positions = {}
        with suppress(KafkaError, OSError):  # no answer; TimeoutError is an OSError
            async with asyncio.timeout(ANSWER_WITHIN_S):
                positions = await self._positions()
            async with asyncio.timeout(ANSWER_WITHIN_S):
                ends = await _ends_of(client, list(positions))
            self._progress.answered(positions, ends)
            return
        with suppress(KafkaError, OSError):  # a topic that is gone is waited for without an end
            async with asyncio.timeout(ANSWER_WITHIN_S):
                there = await client.topics()
            self._progress.missing({place.topic for place in positions} - there)


async def _ends_of(client: AIOKafkaConsumer, places: list[TopicPartition]) -> Offsets:
    """Asks the broker in any case: who has no partition is not ready while it is away either."""
    if not places:
        await client.topics()
        return {}
    ends: Offsets = await client.end_offsets(places)
    return ends


async def positions_of(client: AIOKafkaConsumer) -> dict[TopicPartition, int | None]:
    """Where a consumer is in each of its partitions."""
    own = client.assignment()
    fetched = [place for place in own if client.highwater(place) is not None]
    # Of a partition that was never fetched, asking for the position would wait for it.
    return dict.fromkeys(own) | {place: await client.position(place) for place in fetched}
