"""Asking for profiles: the stalest first, within the budget."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from models.identity import request_id
from models.schemas import ProfileRequest
from models.settings import Settings
from streams.metrics import TrackerMetrics
from streams.tracker.owed import DueUsers
from streams.tracker.state import User
from streams.tracker.users import Place, Users
from streams.triggers import NEVER, Due, PartitionClock, TokenBucket
from streams.windows import to_windows, views, windows_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way, and what its acknowledgement will mark."""

    place: Place
    request: ProfileRequest
    evidence: float


class Asker:
    """Spends the budget of model calls."""

    def __init__(
        self,
        settings: Settings,
        users: Users,
        due: DueUsers,
        producer: AIOKafkaProducer,
        text_of: Callable[[str], str],
        metrics: TrackerMetrics,
    ) -> None:
        self._settings, self._users, self._due = settings, users, due
        self._producer, self._text_of, self._metrics = producer, text_of, metrics
        per_second = settings.trigger.calls_per_minute / 60
        self._bucket = TokenBucket.full(per_second, settings.trigger.burst_calls, time.monotonic())
        self._asked_at: dict[Place, float] = {}  # monotonic seconds

    async def ask(self, clocks: dict[int, PartitionClock]) -> int:
        """Send the requests that the budget allows now; returns how many."""
        self._share_budget(len(clocks))
        asked = [
            self._request(place, due, clocks[place[0]])
            for place, due in self._affordable()
            if place[0] in clocks
        ]
        waiting = [await self._send(one.request) for one in asked]  # 1. produce
        await asyncio.gather(*waiting)  # 2. the broker acknowledges
        for one in asked:
            self._metrics.requests.labels(rule=one.request.rule).inc()
            if one.place[0] in clocks:  # 3. mark, where the partition is still ours
                self._mark(one)
        return len(asked)

    def wake_silent(self, clocks: dict[int, PartitionClock]) -> None:
        """Look again at users whose windows have emptied by age alone."""
        wall = _wall_ms()
        for partition, clock in clocks.items():
            now = clock.now(wall)
            for place in self._due.silent(partition, now):
                self._due.look_at(partition, self._users.get(*place), now)

    def _share_budget(self, partitions: int) -> None:
        trigger = self._settings.trigger
        share = partitions / self._settings.kafka.partitions
        self._bucket.rate = trigger.calls_per_minute / 60 * share
        self._bucket.burst = max(1.0, trigger.burst_calls * share)

    def _affordable(self) -> list[tuple[Place, Due]]:
        now = time.monotonic()
        calls = self._bucket.available(now)
        self._metrics.budget_available.set(max(0, calls))
        self._metrics.profiles_due.set(len(self._due))
        if calls <= 0 or not len(self._due):
            return []
        rested = now - self._settings.trigger.min_interval_s
        resting = sum(at > rested for at in self._asked_at.values())
        stalest = self._due.stalest(calls + resting, now)
        ready = [one for one in stalest if self._asked_at.get(one[0], rested) <= rested]
        self._asked_at = {place: at for place, at in self._asked_at.items() if at > rested}
        return ready[:calls]

    def _request(self, place: Place, due: Due, clock: PartitionClock) -> Asked:
        partition, user_id = place
        user, wall = self._users.get(partition, user_id), _wall_ms()
        request = build_request(
            user, partition, due, clock.now(wall), wall, self._settings, self._text_of
        )
        self._bucket.spend(1)
        self._asked_at[place] = time.monotonic()
        return Asked(place, request, user.head.evidence)

    async def _send(self, request: ProfileRequest) -> asyncio.Future[object]:
        topic = self._settings.topic("profile-requests")
        return await self._producer.send(
            topic, request.to_json(), request.user_id.encode(), partition=request.partition
        )

    def _mark(self, asked: Asked) -> None:
        (partition, user_id), request = asked.place, asked.request
        user = self._users.get(partition, user_id)
        head = user.head
        head.requested, head.requested_edits = request.applied_offset, request.edits_offset
        head.requested_as_of, head.requested_evidence = request.as_of, asked.evidence
        head.requests = request.number
        self._users.save(partition, user)
        self._due.settle(asked.place)
        self._due.look_at(partition, user, request.as_of)


def build_request(
    user: User,
    partition: int,
    due: Due,
    as_of: int,
    wall: int,
    settings: Settings,
    text_of: Callable[[str], str],
) -> ProfileRequest:
    """The request for a user's profile at event time `as_of`, with its windows and their hash."""
    head = user.head
    windows = to_windows(views(user.history, as_of, settings.windows), text_of)
    return ProfileRequest(
        request_id=request_id(user.user_id, head.applied, head.edits, as_of),
        user_id=user.user_id,
        number=head.requests + 1,
        as_of=as_of,
        applied_offset=head.applied,
        edits_offset=head.edits,
        history_from=head.history_from,
        forgotten_until=None if head.forgotten_until == NEVER else head.forgotten_until,
        partition=partition,
        windows=windows,
        windows_hash=windows_hash(windows),
        edits=head.applied_edits(),
        rule=due.rule or "evidence",
        staleness=round(due.staleness, 4),
        requested_at=wall,
    )


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
