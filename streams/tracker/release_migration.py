"""Users move to the release that serves now: their profile's vector first, then a new list.

The vector that came with a profile is of the release that wrote it. For another release the
indexer makes one of the profile's text, in the table `profiles@<release>`; from there it is taken
into the user's state. Until it is there the user's lists are made without the profile, for vectors
of two releases are never mixed. Whose vector is of another release can be read off the states
(property 5), so a restart finds it again.

When another release begins to serve, all users are looked through, some at a time: while as many
as one batch wait for a list none are added, and then the tracker rests for as long as they took,
so that events keep at least half of its time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, TypeVar

from models.errors import VectorIndexError
from models.ports import VectorIndex, VectorRow
from models.release.store import profiles_table
from models.settings import Settings
from streams.metrics import TrackerMetrics
from streams.partition_clock import PartitionClock
from streams.tracker.quarantine import UserQuarantine
from streams.tracker.scheduling import ServeQueue, recommendation_trigger
from streams.tracker.serving_views import ServingViews
from streams.tracker.state import Head, ProfileRecord
from streams.tracker.users import Place, Users

log = logging.getLogger(__name__)

LOOKED_THROUGH: Final = 256  # users at once, a few milliseconds
LOOKED_UP: Final = 128  # profile vectors at once
TICK_S: Final = 0.02
T = TypeVar("T")


def is_foreign(profile: ProfileRecord | None, release: str | None) -> bool:
    """Whether the profile's vector is of another release than this one."""
    return profile is not None and release is not None and profile.vector_release != release


class ReleaseMigration:
    """Keeps users' profile vectors, and their lists, those of the serving release."""

    def __init__(
        self,
        settings: Settings,
        users: Users,
        waiting: ServeQueue,
        views: ServingViews,
        index: VectorIndex,
        clocks: Mapping[int, PartitionClock],
        metrics: TrackerMetrics,
    ) -> None:
        """`clocks`: of the partitions that are ours now."""
        self._batch, self._retry_s = settings.ranking.batch, settings.ranking.refresh_s
        self._users, self._waiting, self._views = users, waiting, views
        self._index, self._clocks, self._metrics = index, clocks, metrics
        self.quarantine = UserQuarantine("move", users, metrics)
        self._release: str | None = None  # the one that users are moved to
        self._unread: deque[tuple[int, str]] = deque()  # partition, last user looked through
        self._foreign: OrderedDict[Place, None] = OrderedDict()  # vectors to be looked up
        self._absent: OrderedDict[Place, None] = OrderedDict()  # not there yet, oldest first
        self._again = 0  # how many of these are to be looked up again
        self._asked_at, self._version = 0.0, -1  # when, and which version of the table it was
        self._began = self._added_at = self._rest_until = 0.0  # monotonic seconds

    def __len__(self) -> int:
        """Users known to have a profile vector of another release."""
        return len(self._foreign) + len(self._absent)

    def begin(self, release: str | None) -> None:
        """Partitions were assigned anew; whoever read their states gives them to `look_at`."""
        self._release = release
        self._unread.clear()
        self._foreign.clear()
        self._absent.clear()
        self._again, self._version = 0, -1

    def look_at(self, place: Place, head: Head, profile: ProfileRecord | None) -> None:
        """See to it that the user gets the vector and the list that are owed, if any are.

        A list that is owed for the release alone waits until the vector was looked up.
        """
        release = self._release
        trigger = recommendation_trigger(head, profile, release)
        if is_foreign(profile, release):
            self._absent.pop(place, None)
            self._foreign[place] = None
            trigger = None if trigger == "release" else trigger
        if trigger is not None:
            self._waiting.add(place, at_once=trigger != "event")

    async def step(self) -> None:
        """Look up some vectors and look through some users, as far as there is need and time.

        Raises VectorIndexError if the index does not answer; what was to be done still is.
        """
        snapshot = self._views.snapshot
        if snapshot is None:
            return
        if snapshot.release != self._release:
            self._move_to(snapshot.release)
        for place in self.quarantine.returned(self._clocks):
            with self.quarantine.sparing(place):
                user = self._users.get(*place)
                self.look_at(place, user.head, user.profile)
        if self._foreign:
            await self._look_up(self._taken(self._foreign))
        await self._retry()
        self._metrics.foreign_vectors.set(len(self))
        if self._unread and self._has_time():
            self._look_through()

    def _move_to(self, release: str) -> None:
        log.info("users of %d partitions move to release %s", len(self._clocks), release)
        self.begin(release)
        self._unread.extend((partition, "") for partition in sorted(self._clocks))
        self._began = time.monotonic()
        self._added_at = self._rest_until = 0.0

    def _has_time(self) -> bool:
        """Not while a batch waits, nor for as long after it as it took."""
        now = time.monotonic()
        if self._foreign or len(self._waiting) >= self._batch:
            return False
        if self._added_at:
            self._rest_until, self._added_at = now + (now - self._added_at), 0.0
        return now >= self._rest_until

    def _look_through(self) -> None:
        partition, after = self._unread.popleft()
        if partition in self._clocks:
            found = list(islice(self._users.heads(partition, after), LOOKED_THROUGH))
            for user_id, head in found:
                with self.quarantine.sparing((partition, user_id)):
                    profile = self._users.profile(partition, user_id)
                    self.look_at((partition, user_id), head, profile)
            if len(found) == LOOKED_THROUGH:
                self._unread.appendleft((partition, found[-1][0]))
        self._added_at = time.monotonic()
        if not self._unread:
            log.info("all users were looked through, %.1f s", self._added_at - self._began)

    async def _retry(self) -> None:
        """Look again for vectors that were not there, once the table has changed."""
        now = time.monotonic()
        if self._absent and now - self._asked_at >= self._retry_s:
            self._asked_at = now
            version = await _answered(self._index.version, self._table)
            if version != self._version:
                self._version, self._again = version, len(self._absent)
        if self._again:
            places = self._taken(self._absent)
            self._again = max(0, self._again - LOOKED_UP)
            await self._look_up(places)

    @staticmethod
    def _taken(places: OrderedDict[Place, None]) -> list[Place]:
        return [places.popitem(last=False)[0] for _ in range(min(LOOKED_UP, len(places)))]

    async def _look_up(self, places: Sequence[Place]) -> None:
        release = self._release
        try:
            rows = await self._rows(places)
        except VectorIndexError:
            self._foreign.update(dict.fromkeys(places))
            raise
        if self._release == release:  # else all users are looked through again
            for place in places:
                with self.quarantine.sparing(place):
                    self._settle(place, rows.get(place[1]))

    async def _rows(self, places: Iterable[Place]) -> dict[str, VectorRow]:
        ids = [user_id for _, user_id in places]
        return await _answered(self._index.get, self._table, ids)

    @property
    def _table(self) -> str:
        return profiles_table(self._release or "")

    def _settle(self, place: Place, row: VectorRow | None) -> None:
        """Take the vector over if it is of the very profile; owe the list in any case."""
        partition, user_id = place
        if partition not in self._clocks or self._release is None:
            return
        user = self._users.get(partition, user_id)
        profile = user.profile
        if profile is not None and is_foreign(profile, self._release):
            if row is not None and row.attributes.get("profile_id") == profile.profile_id:
                record = profile.with_vector(row.vector, self._release)
                self._users.save_profile(partition, user, record)
            else:
                self._absent[place] = None
        if recommendation_trigger(user.head, user.profile, self._release) is not None:
            self._waiting.add(place, at_once=True)


async def _answered(call: Callable[..., T], *arguments: object) -> T:
    """The index's answer, from a thread."""
    try:
        return await asyncio.to_thread(call, *arguments)
    except (OSError, RuntimeError, ValueError) as error:  # the library's own are bare
        raise VectorIndexError(f"profile vectors could not be looked up: {error}") from error
