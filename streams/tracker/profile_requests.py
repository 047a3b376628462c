"""Asking for profiles: the stalest first, within the budget."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable

from models.identity import request_id
from models.schemas import EARLIEST_MS, ProfileRequest
from models.settings import Settings
from streams.metrics import TrackerMetrics
from streams.partition_clock import PartitionClock
from streams.tracker.partition_takeover import Partitions
from streams.tracker.partition_writer import Output
from streams.tracker.quarantine import UserQuarantine
from streams.tracker.reducer import whole_or_not
from streams.tracker.scheduling import RefreshQueue
from streams.tracker.state import User
from streams.tracker.users import Place, Users
from streams.triggers import Due, TokenBucket
from streams.windows import to_windows, views, windows_hash

log = logging.getLogger(__name__)


class ProfileRequester:
    """Spends the budget of model calls."""

    def __init__(
        self,
        settings: Settings,
        users: Users,
        partitions: Partitions,
        due: RefreshQueue,
        text_of: Callable[[str], str],
        metrics: TrackerMetrics,
    ) -> None:
        self._settings, self._users, self._due = settings, users, due
        self._partitions, self._text_of, self._metrics = partitions, text_of, metrics
        per_second = settings.trigger.calls_per_minute / 60
        self._bucket = TokenBucket.full(per_second, settings.trigger.burst_calls, time.monotonic())
        self._asked_at: dict[Place, float] = {}  # monotonic seconds
        self.quarantine = UserQuarantine("ask", users, metrics)

    async def ask(self, clocks: dict[int, PartitionClock]) -> int:
        """Send the requests that the budget allows now; returns how many.

        A request and its mark are committed together. Raises PartitionLost.
        """
        self._share_budget(len(clocks))
        self._look_at(self.quarantine.returned(clocks), clocks)
        asked: list[ProfileRequest] = []
        for place, due in self._affordable(clocks):
            with self.quarantine.sparing(place):
                asked.append(self._ask(place, due, clocks[place[0]]))
        await self._partitions.committed(request.partition for request in asked)
        for request in asked:
            self._metrics.requests.labels(rule=request.rule).inc()
        return len(asked)

    def wake_silent(self, clocks: dict[int, PartitionClock]) -> None:
        """Look again at users whose windows have emptied by age alone."""
        for partition, clock in clocks.items():
            self._look_at(self._due.silent(partition, clock, _wall_ms()), clocks)

    def _look_at(self, places: Iterable[Place], clocks: dict[int, PartitionClock]) -> None:
        wall = _wall_ms()
        for place in places:
            with self.quarantine.sparing(place):
                self._due.look_at(place[0], self._users.get(*place), clocks[place[0]], wall)

    def _share_budget(self, partitions: int) -> None:
        trigger = self._settings.trigger
        share = partitions / self._settings.kafka.partitions
        self._bucket.rate = trigger.calls_per_minute / 60 * share
        self._bucket.burst = max(1.0, trigger.burst_calls * share)

    def _affordable(self, partitions: Container[int]) -> list[tuple[Place, Due]]:
        now = time.monotonic()
        calls = self._bucket.available(now)
        self._metrics.budget_available.set(max(0, calls))
        self._metrics.profiles_due.set(len(self._due))
        if calls <= 0 or not len(self._due):
            return []
        rested = now - self._settings.trigger.min_interval_s
        resting = sum(at > rested for at in self._asked_at.values())
        stalest = self._due.stalest(calls + resting + len(self.quarantine), now)
        ready = [
            (place, due)
            for place, due in stalest
            if self._asked_at.get(place, rested) <= rested
            and place[0] in partitions
            and not self.quarantine.holds(place)
        ]
        self._asked_at = {place: at for place, at in self._asked_at.items() if at > rested}
        return ready[:calls]

    def _ask(self, place: Place, due: Due, clock: PartitionClock) -> ProfileRequest:
        partition, user_id = place
        user, wall = self._users.get(partition, user_id), _wall_ms()
        as_of = user.now(clock, wall)
        request = build_request(user, partition, due, as_of, wall, self._settings, self._text_of)
        topic = self._settings.topic("profile-requests")
        message = Output(topic, user_id.encode(), request.to_json(), partition)
        with whole_or_not(user):
            self._mark(user, request)
        self._partitions.send(partition, message)
        self._bucket.spend(1)
        self._asked_at[place] = time.monotonic()
        self._due.settle(place)
        self._due.look_at(partition, user, clock, wall)
        return request

    def _mark(self, user: User, request: ProfileRequest) -> None:
        head = user.head
        head.requested, head.requested_edits = request.applied_offset, request.edits_offset
        head.requested_as_of, head.requested_evidence = request.as_of, head.evidence
        head.requests = request.number
        self._users.save(request.partition, user)


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
        forgotten_until=head.forgotten_until if head.forgotten_until >= EARLIEST_MS else None,
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
