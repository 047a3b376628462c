"""What is owed to which user, in memory; all of it can be read off the states (property 5).

After a restart or rebalance the states are scanned and the same entries appear again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Final, Literal

from models.settings import TriggerSettings, WindowSettings
from streams.partition_clock import PartitionClock
from streams.tracker.state import Head, ProfileRecord, User
from streams.tracker.users import Place
from streams.triggers import NEVER, Due, next_emptying, staleness

_LONGEST_UNSETTLED: Final = 10  # times `settle_s`

Trigger = Literal["event", "profile", "release", "edit"]


def recommendation_trigger(
    head: Head, profile: ProfileRecord | None, release: str | None
) -> Trigger | None:
    """Why a recommendation is owed: release, profile, edit or event; None if none is.

    A profile whose vector is of another release cannot be used, and owes nothing until it is.
    """
    if head.applied == NEVER and profile is None:
        return None
    if head.recommended_release and release and head.recommended_release != release:
        return "release"
    profile_id = profile.profile_id if profile is not None else ""
    usable = profile is None or release in (None, profile.vector_release)
    if usable and profile_id != head.recommended_profile:
        return "profile"
    if head.edits > head.recommended_edits:
        return "edit"
    return "event" if head.applied > head.recommended else None


class ServeQueue:
    """Users whose state has moved since their last recommendation, newest first.

    A user served within the last `interval` seconds waits until it is over; a new profile or
    release does not wait.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.ready = asyncio.Event()  # set when somebody may be served now
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
        self.ready.set()

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


class RefreshQueue:
    """Users to whom a profile is owed, and those to look at again when a window empties.

    A user who is still moving, in the middle of a visit or of an import, is asked for once no
    event has come for `settle_s`, so that one profile tells the whole visit; after ten times as
    long the user is asked for all the same.
    """

    def __init__(self, spec: TriggerSettings, spans: WindowSettings) -> None:
        self._spec, self._spans = spec, spans
        self._due: dict[Place, Due] = {}
        self._moving: dict[Place, tuple[float, float]] = {}  # due and moved at, monotonic seconds
        self._timers = Timers()

    def __len__(self) -> int:
        return len(self._due)

    def look_at(
        self,
        partition: int,
        user: User,
        clock: PartitionClock,
        wall: int,
        moved_at: float | None = None,
    ) -> None:
        """Note whether the user's profile is due at `wall` (epoch ms) by the partition's clock.

        `moved_at` (monotonic seconds): an event of the user was applied then.
        """
        place = (partition, user.user_id)
        self.look_at_head(place, user.head, user.newest, clock, wall, moved_at)

    def look_at_head(
        self,
        place: Place,
        head: Head,
        newest: int,
        clock: PartitionClock,
        wall: int,
        moved_at: float | None = None,
    ) -> None:
        """The same from the head alone."""
        marks, now = head.marks(newest), head.now(clock, wall, newest)
        found = staleness(marks, now, self._spec, self._spans)
        if found.rule is not None:
            self._due[place] = found
            if moved_at is not None:
                due_at, _ = self._moving.get(place, (moved_at, moved_at))
                self._moving[place] = due_at, moved_at
            return
        self.settle(place)
        emptying = next_emptying(marks, self._spans)
        if emptying is not None:  # no user's time passes faster than the partition's
            emptying = clock.passed(wall) + max(0, emptying - now)
        self._timers.wake_at(place, emptying)

    def silent(self, partition: int, clock: PartitionClock, wall: int) -> Iterator[Place]:
        """Users of a partition one of whose windows may have emptied by `wall`."""
        return self._timers.run_out(partition, clock.passed(wall))

    def stalest(self, count: int, now: float) -> list[tuple[Place, Due]]:
        """Up to `count` users who have settled at monotonic `now`, stalest first, ties by place."""
        return heapq.nsmallest(
            count,
            ((place, due) for place, due in self._due.items() if self._settled(place, now)),
            key=lambda entry: (-entry[1].staleness, entry[0]),
        )

    def _settled(self, place: Place, now: float) -> bool:
        if place not in self._moving:
            return True
        due_at, moved_at = self._moving[place]
        rest = self._spec.settle_s
        return now - moved_at >= rest or now - due_at >= _LONGEST_UNSETTLED * rest

    def settle(self, place: Place) -> None:
        """The user's profile has been asked for, or is not due."""
        self._due.pop(place, None)
        self._moving.pop(place, None)

    def drop_partitions_except(self, partitions: set[int]) -> None:
        """Forget users of other partitions."""
        self._due = {place: due for place, due in self._due.items() if place[0] in partitions}
        self._moving = {place: at for place, at in self._moving.items() if place in self._due}
        self._timers.drop_partitions_except(partitions)


class Timers:
    """One time per user at which to look again; setting it anew replaces it.

    A user's later time does not enter the heap: the earlier entry, when it runs out, is put back
    under the later time. So a heap holds one entry per user however many events come.
    """

    def __init__(self) -> None:
        self._wanted: dict[Place, int] = {}  # of the partition's time, ms
        self._queued: dict[Place, int] = {}  # the entry of each user that counts
        self._heaps: defaultdict[int, list[tuple[int, Place]]] = defaultdict(list)  # by partition

    def __len__(self) -> int:
        return sum(map(len, self._heaps.values()))

    def wake_at(self, place: Place, at: int | None) -> None:
        """Look at the user at time `at` of the partition; None: not any more."""
        if at is None:
            self._wanted.pop(place, None)
            return
        self._wanted[place] = at
        if at < self._queued.get(place, at + 1):
            self._push(place, at)

    def run_out(self, partition: int, now: int) -> Iterator[Place]:
        """Users of a partition whose time has come; each is named once."""
        heap = self._heaps[partition]
        while heap and heap[0][0] <= now:
            at, place = heapq.heappop(heap)
            if self._queued.get(place) != at:
                continue  # an earlier time has taken its place
            del self._queued[place]
            wanted = self._wanted.get(place)
            if wanted is not None and wanted > now:
                self._push(place, wanted)
            elif wanted is not None:
                del self._wanted[place]
                yield place

    def _push(self, place: Place, at: int) -> None:
        self._queued[place] = at
        heapq.heappush(self._heaps[place[0]], (at, place))

    def drop_partitions_except(self, partitions: set[int]) -> None:
        """Forget users of other partitions."""
        for partition in self._heaps.keys() - partitions:
            del self._heaps[partition]
        for times in (self._wanted, self._queued):
            for place in [place for place in times if place[0] not in partitions]:
                del times[place]
