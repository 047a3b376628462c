"""Which partitions are this worker's now, and what their state says is owed when they become so."""

from __future__ import annotations

import logging
import time

from aiokafka import TopicPartition

from models.errors import RecordDamaged
from models.settings import Settings
from streams.kafka.clients import group_id, has_committed
from streams.kafka.continuity import Kept, Present, TopicWatch, check_continuity
from streams.partition_clock import PartitionClock
from streams.tracker.gaps import GapReader
from streams.tracker.partition_takeover import Partitions
from streams.tracker.quarantine import UserQuarantine
from streams.tracker.release_migration import ReleaseMigration
from streams.tracker.runtime import FaustRuntime
from streams.tracker.serving_views import ServingViews
from streams.tracker.state import CLOCK_KEY, decode_clock, source_key
from streams.tracker.working_set import WorkingSet
from streams.triggers import NEVER

log = logging.getLogger(__name__)


class Assignment:
    """Follows what the group gives to this worker and takes from it."""

    def __init__(
        self,
        runtime: FaustRuntime,
        partitions: Partitions,
        working_set: WorkingSet,
        migration: ReleaseMigration,
        views: ServingViews,
    ) -> None:
        self._runtime, self._partitions, self._working_set = runtime, partitions, working_set
        self._migration, self._views = migration, views
        self.generation: int | None = None  # None between two assignments

    def covers(self, partition: int, generation: int) -> bool:
        """Whether what was delivered of a partition in a generation is to be worked now."""
        ours = partition in self._working_set and partition in self._partitions
        return ours and generation == self.generation

    async def on_revoked(self) -> None:
        """Commit what was applied before another worker takes over."""
        self.generation = None
        await self._partitions.leave()
        self._working_set.drop_except(set())

    async def on_assigned(self) -> None:
        """We were given partitions; nothing of them is delivered before their state is read."""
        try:
            partitions = self._runtime.assigned("interactions")
            self._working_set.drop_except(set())
            self._working_set.forget_profiles_except(partitions)
            self._migration.begin(self._views.release_of_lists)
            self.generation = self._runtime.generation
            await self._partitions.acquire(partitions)
        except Exception as error:  # noqa: BLE001 (Faust would only log it)
            await self._runtime.crash(error)


class Recovery:
    """Reads the state of a partition that was acquired: how far it is, and what it owes."""

    def __init__(
        self,
        settings: Settings,
        partitions: Partitions,
        working_set: WorkingSet,
        asking: UserQuarantine,
        migration: ReleaseMigration,
        gaps: GapReader,
        watch: TopicWatch,
    ) -> None:
        """`asking`: users who are left alone when profiles are asked for."""
        self._settings, self._partitions, self._working_set = settings, partitions, working_set
        self._asking, self._migration = asking, migration
        self._gaps, self._watch = gaps, watch

    async def read(self, partition: int) -> None:
        """The partition is ours and its state complete. Raises TopicError (property 7)."""
        clock, interactions, edits = self._clock_of(partition)
        await self._check_continuity(partition, "interactions", interactions)
        await self._check_continuity(partition, "profile-edits", edits)
        self._working_set.begin(partition, clock, (interactions, edits))
        self._find_owed(partition, clock)

    def _find_owed(self, partition: int, clock: PartitionClock) -> None:
        wall, users = time.time_ns() // 1_000_000, self._working_set.users
        profiles = dict(users.profiles(partition))
        for user_id, head in users.heads(partition):
            place = (partition, user_id)
            newest = head.tail[-1].timestamp if head.tail else NEVER
            with self._asking.sparing(place):
                self._working_set.due.look_at_head(place, head, newest, clock, wall)
            with self._migration.quarantine.sparing(place):
                self._migration.look_at(place, head, profiles.get(user_id))

    def _clock_of(self, partition: int) -> tuple[PartitionClock, int, int]:
        """Without a clock that can be read, all records are read again; users know what is new."""
        try:
            return decode_clock(self._partitions.get(partition, CLOCK_KEY))
        except RecordDamaged as error:
            self._working_set.users.note_damaged(partition, "the partition's clock", error)
            return decode_clock(None)

    async def _check_continuity(self, partition: int, name: str, applied: int) -> None:
        topic, key = self._settings.topic(name), source_key(name)
        beginning, end = await self._gaps.range(topic, partition)
        found = (await self._watch.ids()).get(topic, "")
        known = (self._partitions.get(partition, key) or b"").decode(errors="replace")
        kept = Kept.by_tracker(topic, partition, applied, known)
        present = Present(found, beginning, end)
        gap = beginning > applied
        accept = gap and not applied and not await self._state_was_lost(topic, partition)
        check_continuity(kept, present, accept_gap=accept)
        if found and found != known:
            self._partitions.write(partition, [(key, found.encode())])

    async def _state_was_lost(self, topic: str, partition: int) -> bool:
        """Whether a state without anything of a topic is no beginning."""
        place, group = TopicPartition(topic, partition), group_id(self._settings, "tracker")
        if not await has_committed(self._settings, group, place):
            return False
        log.error(
            "partition %d: %s was read, and the state holds nothing of it: its changelog was lost",
            partition,
            topic,
        )
        return True
