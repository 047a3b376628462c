"""What is owed to which user, in memory; all of it can be read off the states (property 5).

After a restart or rebalance the states are scanned and the same entries appear again.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

from models.settings import TriggerSettings, WindowSettings
from streams.tracker.state import Head, ProfileRecord, User
from streams.tracker.users import Place
from streams.triggers import NEVER, Due, next_emptying, staleness

Trigger = Literal["event", "profile", "release"]


def recommendation_trigger(
    head: Head, profile: ProfileRecord | None, release: str | None
) -> Trigger | None:
    """Why a recommendation is owed: release, profile or event; None if none is."""
    profile_id = profile.profile_id if profile is not None else ""
    if head.applied == NEVER and not profile_id:
        return None
    if head.recommended_release and release and head.recommended_release != release:
        return "release"
    if profile_id != head.recommended_profile:
        return "profile"
    return "event" if head.applied > head.recommended else None


class WaitingUsers:
    """Users whose state has moved since their last recommendation, newest first.

    A user served within the last `interval` seconds waits until it is over; a new profile or
    release does not wait.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._ready: OrderedDict[Place, None] = OrderedDict()
        self._resting: OrderedDict[Place, float] = OrderedDict()  # when last served, oldest first
        self._moved: set[Place] = set()  # among the resting ones

    def __len__(self) -> int:
        return len(self._ready) + len(self._moved)

    def add(self, place: Place, *, at_once: bool = False) -> None:
        """The user's state has moved."""
        if place in self._resting and not at_once:
            self._moved.add(place)
            return
        self._moved.discard(place)
        self._ready[place] = None
        self._ready.move_to_end(place)

    def take(self, count: int, now: float) -> list[Place]:
        """Up to `count` users to be served now (monotonic seconds), newest first."""
        self._wake(now)
        taken: list[Place] = []
        while self._ready and len(taken) < count:
            place, _ = self._ready.popitem()
            self._resting[place] = now
            self._resting.move_to_end(place)
            taken.append(place)
        return taken

    def _wake(self, now: float) -> None:
        while self._resting:
            place, served = next(iter(self._resting.items()))
            if now - served < self._interval:
                return
            del self._resting[place]
            if place in self._moved:
                self._moved.discard(place)
                self._ready.setdefault(place)

    def drop_partitions_except(self, partitions: set[int]) -> None:
        """Forget users of other partitions."""
        for places in (self._ready, self._resting):
            for place in [place for place in places if place[0] not in partitions]:
                del places[place]
        self._moved = {place for place in self._moved if place[0] in partitions}


class DueUsers:
    """Users to whom a profile is owed, and those to look at again when a window empties."""

    def __init__(self, spec: TriggerSettings, spans: WindowSettings) -> None:
        self._spec, self._spans = spec, spans
        self._due: dict[Place, Due] = {}
        self._timers: list[tuple[int, Place]] = []

    def __len__(self) -> int:
        return len(self._due)

    def look_at(self, partition: int, user: User, now: int) -> None:
        """Note whether the user's profile is due at event time `now`."""
        self.look_at_head((partition, user.user_id), user.head, user.newest, now)

    def look_at_head(self, place: Place, head: Head, newest: int, now: int) -> None:
        """The same from the head alone."""
        marks = head.marks(newest)
        found = staleness(marks, now, self._spec, self._spans)
        if found.rule is not None:
            self._due[place] = found
            return
        self._due.pop(place, None)
        emptying = next_emptying(marks, self._spans)
        if emptying is not None:
            heapq.heappush(self._timers, (emptying, place))

    def silent(self, partition: int, now: int) -> Iterator[Place]:
        """Users of a partition one of whose windows has emptied by event time `now`."""
        later = []
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)
            if timer[1][0] == partition:
                yield timer[1]
            else:
                later.append(timer)
        for timer in later:
            heapq.heappush(self._timers, timer)

    def stalest(self, count: int) -> list[tuple[Place, Due]]:
        """Up to `count` users, stalest first, ties by place."""
        return heapq.nsmallest(
            count, self._due.items(), key=lambda entry: (-entry[1].staleness, entry[0])
        )

    def settle(self, place: Place) -> None:
        """The user's profile has been asked for."""
        self._due.pop(place, None)

    def drop_partitions_except(self, partitions: set[int]) -> None:
        """Forget users of other partitions."""
        self._due = {place: due for place, due in self._due.items() if place[0] in partitions}
        self._timers = [timer for timer in self._timers if timer[1][0] in partitions]
        heapq.heapify(self._timers)
