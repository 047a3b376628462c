"""Records of three topics into users' states: interactions, profiles, edits.

The numbers are those of streams/tracker/delivery.py. Nothing here waits for the vector index or for
a model.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import chain, groupby
from operator import attrgetter
from typing import TypeVar

from aiokafka import TopicPartition

from models.schemas import Interaction, Profile, ProfileEdit
from models.settings import Settings
from streams.codec import Misrouted, Rejected, Removal, decode_interaction, decode_keyed
from streams.last_resort import attempted, failure
from streams.metrics import TrackerMetrics
from streams.tracker.far_ahead import FarAhead
from streams.tracker.gaps import GapReader
from streams.tracker.partition_takeover import Partitions
from streams.tracker.partition_writer import Output
from streams.tracker.readiness import BatchTimes
from streams.tracker.reducer import (
    Arrival,
    apply_edit,
    apply_interactions,
    is_current,
    pass_time,
    whole_or_not,
)
from streams.tracker.refusals import Refusals
from streams.tracker.release_migration import ReleaseMigration
from streams.tracker.runtime import DeliveredRecord
from streams.tracker.state import ProfileRecord, User
from streams.tracker.working_set import EDITS, INTERACTIONS, WorkingSet

log = logging.getLogger(__name__)

M = TypeVar("M", Profile, ProfileEdit)
EventOutcomes = Counter[tuple[str, str]]  # (type, outcome) of interactions


class TrackerIntake:
    """Decodes and applies what is delivered, and what was passed over before it."""

    def __init__(
        self,
        settings: Settings,
        partitions: Partitions,
        working_set: WorkingSet,
        migration: ReleaseMigration,
        refusals: Refusals,
        gaps: GapReader,
        times: BatchTimes,
        end_of: Callable[[TopicPartition], int | None],
        metrics: TrackerMetrics,
    ) -> None:
        """`end_of`: up to where there is something to read in a partition, if it is known."""
        self._settings, self._partitions, self._working_set = settings, partitions, working_set
        self._migration, self._refusals, self._gaps = migration, refusals, gaps
        self._times, self._end_of, self._metrics = times, end_of, metrics
        self._users, self._due = working_set.users, working_set.due
        self._waiting = working_set.waiting
        self._far_ahead = FarAhead(metrics)
        # Who applies a topic's records: its agent, or who reads what that was not given.
        self.turns = {name: asyncio.Lock() for name in ("interactions", "profile-edits")}

    # -- what is delivered ----------------------------------------------------------------

    async def on_interactions(self, delivered: list[DeliveredRecord]) -> None:
        """Apply a batch. Raises PartitionLost."""
        async with self.turns["interactions"]:
            expected = self._working_set.expected(INTERACTIONS)
            async for rows in self._complete("interactions", delivered, expected):
                await self.take_interactions(rows)

    async def on_edits(self, delivered: list[DeliveredRecord]) -> None:
        """As `on_interactions`."""
        async with self.turns["profile-edits"]:
            expected = self._working_set.expected(EDITS)
            async for rows in self._complete("profile-edits", delivered, expected):
                await self.take_edits(rows)

    async def on_profiles(self, delivered: list[DeliveredRecord]) -> None:
        """As `on_interactions`."""
        next_profiles = self._working_set.next_profiles
        async for rows in self._complete("profiles", delivered, next_profiles):
            await self._each(rows, self._take_profile)
            next_profiles.update({row.partition: row.offset + 1 for row in rows})

    async def _complete(
        self, topic: str, delivered: list[DeliveredRecord], expected: dict[int, int]
    ) -> AsyncIterator[list[DeliveredRecord]]:
        """What of a batch is not applied yet, and what was passed over before it, in slices.

        Raises PartitionLost if a partition is lost meanwhile, also when it is ours again.
        """
        before = self._working_set.held()
        new = [row for row in delivered if row.offset >= expected.get(row.partition, 0)]
        async for rows in self._gaps.complete(new, expected):
            self._working_set.check_unchanged({row.partition for row in rows}, before)
            self._times.begin(topic)
            yield rows

    # -- interactions ---------------------------------------------------------------------

    async def take_interactions(self, rows: list[DeliveredRecord]) -> None:
        """Apply what comes next, in order of partition and offset. Raises PartitionLost."""
        for _, part in groupby(rows, key=lambda row: row.partition):
            self._take_interactions(list(part))  # 1. and 2.
        await self._partitions.committed(row.partition for row in rows)  # 3.

    def _take_interactions(self, rows: list[DeliveredRecord]) -> None:
        """Rows of one partition."""
        arrivals, refused = self._decode(rows)
        refused += self._apply(arrivals, rows)
        for row, problem in refused:
            self._refusals.refuse_event(row, problem)

    def _decode(
        self, rows: list[DeliveredRecord]
    ) -> tuple[dict[str, list[Arrival]], list[tuple[DeliveredRecord, Misrouted | Rejected]]]:
        partitions = self._settings.kafka.partitions
        tolerance = int(self._settings.windows.future_tolerance_s * 1000)
        arrivals: dict[str, list[Arrival]] = defaultdict(list)
        refused: list[tuple[DeliveredRecord, Misrouted | Rejected]] = []
        for row in rows:
            found = attempted(row, partial(decode_interaction, row, partitions, tolerance))
            if isinstance(found, Interaction):
                arrivals[found.user_id].append(Arrival(found, row.offset, row.timestamp))
            else:
                refused.append((row, found))
        return arrivals, refused

    def _apply(
        self, arrivals: dict[str, list[Arrival]], rows: list[DeliveredRecord]
    ) -> list[tuple[DeliveredRecord, Rejected]]:
        """Returns the rows with which applying failed, and how."""
        wall, partition = time.time_ns() // 1_000_000, rows[0].partition
        outcomes: EventOutcomes = Counter()
        arrivals = self._pass_time(arrivals, rows)
        failed = [
            problem
            for user_id, events in arrivals.items()
            for problem in self._apply_each(partition, user_id, events, wall, outcomes)
        ]
        for (kind, outcome), count in outcomes.items():
            self._metrics.events.labels(type=kind, outcome=outcome).inc(count)
        self._measure_lag(rows[-1])
        by_offset = {row.offset: row for row in rows} if failed else {}
        return [(by_offset[arrival.offset], why) for arrival, why in failed]

    def _pass_time(
        self, arrivals: dict[str, list[Arrival]], rows: list[DeliveredRecord]
    ) -> dict[str, list[Arrival]]:
        """Returns the arrivals with the time of their partition."""
        partition, timed = rows[0].partition, defaultdict(list)
        ordered = sorted(chain.from_iterable(arrivals.values()), key=attrgetter("offset"))
        clocks, user_of = self._working_set.clocks, partial(self._users.get, partition)
        passing = pass_time(clocks[partition], ordered, user_of, self._settings.windows)
        clocks[partition] = passing.clock
        self._far_ahead.note(partition, passing.far_ahead)
        for event in passing.arrivals:
            timed[event.interaction.user_id].append(event)
        self._working_set.next_offsets[partition][INTERACTIONS] = rows[-1].offset + 1
        self._working_set.save_clock(partition)
        return timed

    def _apply_each(
        self,
        partition: int,
        user_id: str,
        events: list[Arrival],
        wall: int,
        outcomes: EventOutcomes,
    ) -> list[tuple[Arrival, Rejected]]:
        """Apply a user's events together; if that fails, each alone. Returns those that fail."""
        counted: EventOutcomes = Counter()
        try:
            self._apply_to(partition, user_id, events, wall, counted)
        except Exception as error:
            why = failure(error)
            if len(events) > 1:
                alone = ([event] for event in events)
                parts = (self._apply_each(partition, user_id, e, wall, outcomes) for e in alone)
                return list(chain.from_iterable(parts))
            log.exception("an event of user %s makes the tracker fail", user_id)
            return [(events[0], why)]
        outcomes.update(counted)
        return []

    def _apply_to(
        self,
        partition: int,
        user_id: str,
        events: list[Arrival],
        wall: int,
        outcomes: EventOutcomes,
    ) -> None:
        user, clock = self._users.get(partition, user_id), self._working_set.clocks[partition]
        with whole_or_not(user):
            forgotten_until = user.head.forgotten_until
            inserted = apply_interactions(user, events, self._settings.windows, outcomes)
            forgotten = user.head.forgotten_until != forgotten_until
            if inserted or forgotten:
                self._due.look_at(partition, user, clock, wall, moved_at=time.monotonic())
                self._waiting.add((partition, user_id))
            if forgotten:
                self._users.save_whole(partition, user)
            elif inserted:
                self._users.save(partition, user, inserted)

    def _measure_lag(self, last: DeliveredRecord) -> None:
        topic, partition, position = last.topic, last.partition, last.offset + 1
        end = self._end_of(TopicPartition(topic, partition)) or position
        lag = self._working_set.lags[partition] = max(0, end - position)
        self._metrics.lag.labels(topic=topic, partition=str(partition)).set(lag)

    # -- profiles and edits ---------------------------------------------------------------

    async def _each(
        self, rows: list[DeliveredRecord], take: Callable[[DeliveredRecord], Rejected | None]
    ) -> None:
        """Let each row be taken; a dead letter for those that are refused or fail."""
        found = [(row, attempted(row, partial(take, row))) for row in rows]  # 1.
        for row, why in found:  # 2.
            if why is not None:
                self._refusals.dead_letter(row, why)
        await self._partitions.committed(row.partition for row in rows)  # 3.

    def _read(self, row: DeliveredRecord, schema: type[M]) -> M | Removal | Rejected:
        return decode_keyed(row, schema, self._settings.kafka.partitions)

    def _take_profile(self, row: DeliveredRecord) -> Rejected | None:
        found = self._read(row, Profile)
        if isinstance(found, Profile):
            self._keep_newest(row.partition, found)
        elif isinstance(found, Removal):
            user = self._users.get(row.partition, found.id)
            self._users.save_profile(row.partition, user, None)
        return found if isinstance(found, Rejected) else None

    def _keep_newest(self, partition: int, profile: Profile) -> None:
        user = self._users.get(partition, profile.user_id)
        record = ProfileRecord.of(profile)
        if not is_current(user, record):
            self._metrics.profiles_taken.labels(outcome="forgotten").inc()
            if user.profile is None:  # a tombstone would take a newer profile with it
                self._forget_profile(partition, user)
            return
        if user.profile is not None and user.profile.newness() >= record.newness():
            self._metrics.profiles_taken.labels(outcome="older").inc()
            return
        self._migration.look_at((partition, profile.user_id), user.head, record)
        self._users.save_profile(partition, user, record)
        self._metrics.profiles_taken.labels(outcome="taken").inc()
        if user.head.requests == record.number:
            waited = time.time_ns() // 1_000_000 - user.head.applied_time
            self._metrics.event_to_profile.observe(max(0, waited) / 1000)

    async def take_edits(self, rows: list[DeliveredRecord]) -> None:
        """As `take_interactions`."""
        await self._each(rows, partial(self._take_edit, time.time_ns() // 1_000_000))

    def _take_edit(self, wall: int, row: DeliveredRecord) -> Rejected | None:
        self._working_set.next_offsets[row.partition][EDITS] = row.offset + 1
        self._working_set.save_clock(row.partition)
        edit = self._read(row, ProfileEdit)
        if isinstance(edit, ProfileEdit):
            self._apply_edit(row, edit, wall)
        return edit if isinstance(edit, Rejected) else None

    def _apply_edit(self, row: DeliveredRecord, edit: ProfileEdit, wall: int) -> None:
        user = self._users.get(row.partition, edit.user_id)
        clock = self._working_set.clocks[row.partition]
        with whole_or_not(user):
            if apply_edit(user, edit, row.offset, row.timestamp):
                self._due.look_at(row.partition, user, clock, wall)
                self._waiting.add((row.partition, edit.user_id))
                self._users.save(row.partition, user)
                if edit.action == "forget":
                    self._forget_profile(row.partition, user)

    def _forget_profile(self, partition: int, user: User) -> None:
        """Out of the state, and by a tombstone out of topic `profiles` and the vector index."""
        self._users.save_profile(partition, user, None)
        topic, key = self._settings.topic("profiles"), user.user_id.encode()
        self._partitions.send(partition, Output(topic, key, None, partition))
