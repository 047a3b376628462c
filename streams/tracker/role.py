"""The tracker role: agents that apply, loops that serve and ask.

An agent never waits for the vector index or for a model. What an agent does with a batch:

    1. apply it to the states (no await between reading and writing one)
    2. put the changes, dead letters and events sent on into one transaction per partition
    3. wait until it is committed; then the local store has it too
    4. acknowledge the batch, so that its offsets may be committed

If a partition is lost on the way, none of that has happened there: what is left of the batch is
worked again when the partition is ours again, or by its new owner.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain, groupby
from operator import attrgetter
from typing import Final, TypeVar

import faust
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from faust.types import TP, EventT, StreamT

from models.errors import (
    PartitionLost,
    RecordDamaged,
    StackError,
    TopicError,
)
from models.ports import VectorIndex
from models.schemas import Interaction, Profile, ProfileEdit
from models.settings import Settings
from streams.codec import (
    HEADER_BYTES,
    KEY_BYTES,
    Misrouted,
    Rejected,
    Removal,
    dead_letter,
    decode_interaction,
    decode_keyed,
    forwarded_headers,
)
from streams.health import HealthServer
from streams.kafka.clients import group_id, has_committed
from streams.kafka.consumption import ConsumptionWatch, Positions
from streams.kafka.continuity import Kept, Present, TopicWatch, check_continuity
from streams.kafka.topic_follower import TopicFollower
from streams.kafka.topics import CHANGELOG, ensure_changelog, ensure_topics
from streams.last_resort import attempted, failure
from streams.metrics import TrackerMetrics
from streams.partition_clock import PartitionClock
from streams.service import freeze_gc, until_stopped, working
from streams.tracker.app import (
    DeliveredRecord,
    acknowledge,
    assigned_partitions,
    batches,
    create_app,
    end_of,
    fetched_from,
    leave_stuck_streams_to_readiness,
    raw_topic,
    read_again_from_commits,
    row_of,
)
from streams.tracker.far_ahead import FarAhead
from streams.tracker.gaps import GapReader
from streams.tracker.partitions import Partitions
from streams.tracker.profile_requests import ProfileRequester
from streams.tracker.recommendations import Recommender
from streams.tracker.reducer import (
    Arrival,
    apply_edit,
    apply_interactions,
    is_current,
    pass_time,
    whole_or_not,
)
from streams.tracker.release_migration import TICK_S, ReleaseMigration
from streams.tracker.repeating import every
from streams.tracker.scheduling import RefreshQueue, ServeQueue
from streams.tracker.serving_views import ServingViews
from streams.tracker.state import (
    CLOCK_KEY,
    ProfileRecord,
    User,
    decode_clock,
    encode_clock,
    source_key,
)
from streams.tracker.transactions import Output, OutputsRefused
from streams.tracker.users import Users
from streams.triggers import NEVER

log = logging.getLogger(__name__)

INTERACTIONS, EDITS = 0, 1  # places in `next_offsets`
PASSED_OVER_S: Final = 5.0  # between two looks for what Faust has passed over
TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
M = TypeVar("M", Profile, ProfileEdit)
BatchWork = Callable[[list[DeliveredRecord]], Awaitable[None]]
READ = ("interactions", "profile-edits", "profiles", "items", "releases")  # topics


class TrackerRole:
    """One tracker worker."""

    def __init__(
        self,
        settings: Settings,
        *,
        worker: int,
        index: VectorIndex,
        metrics: TrackerMetrics,
    ) -> None:
        self.settings, self.metrics = settings, metrics
        self.app = create_app(settings, worker)
        self.partitions = Partitions(settings, worker, metrics, self._on_acquired, self._on_lost)
        self.views = ServingViews(settings, index, metrics)
        self.clocks: dict[int, PartitionClock] = {}  # of the partitions that are ours now
        self.next_offsets: dict[int, list[int]] = {}  # partition → [interactions, edits]
        # Not in the state: after a restart the committed offset tells it well enough, for a
        # newer profile takes the place of one that was missed.
        self.next_profiles: dict[int, int] = {}
        self.gaps = GapReader(settings)
        self.watch = TopicWatch(settings, (*READ, CHANGELOG))
        self.waiting = ServeQueue(settings.ranking.interval_s)
        self.due = RefreshQueue(settings.trigger, settings.windows)
        self.users = Users(self.partitions, settings.windows.history_cap, metrics)
        self.migration = ReleaseMigration(
            settings, self.users, self.waiting, self.views, index, self.clocks, metrics
        )
        shared, text_of = (settings, self.users, self.partitions), self.views.texts.text_of
        self.requester = ProfileRequester(*shared, self.due, text_of, metrics)
        self.recommender = Recommender(*shared, self.waiting, self.views, metrics)
        self.followers = self._followers()
        self.assigned: int | None = None  # generation of the assignment; None between two
        self.too_large_to_forward: set[bytes] = set()  # sha256 of events that Kafka refused so
        # Dead letters that Kafka has refused, by topic, partition and offset of their record.
        self.lost_letters: set[tuple[str, int, int]] = set()
        self.far_ahead = FarAhead(metrics)
        self.lags: dict[int, int] = {}  # records behind, by partition of interactions
        port = settings.metrics.tracker_port + worker
        self.health = HealthServer(settings.metrics.host, port, metrics, self._not_ready)
        self.reading = ConsumptionWatch(settings, self._positions)
        self.at_work: dict[str, float] = {}  # agent → since when it has been at its batch
        # Who applies a topic's records: its agent, or who reads what that was not given.
        self.turns = {name: asyncio.Lock() for name in ("interactions", "profile-edits")}
        # (next offset, Faust's position) at the last look, and when all between was read.
        self.looked_at: dict[TP, tuple[int, int]] = {}
        self.read_until: dict[TP, tuple[int, int]] = {}
        self._declare_agents()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or the work ends, then drain."""
        async with AsyncExitStack() as closing:
            with working("tracker", stop):
                await self.health.start(stop)
                closing.push_async_callback(self.health.stop)
                await until_stopped(stop, self._start(closing))
                if not stop.is_set():
                    freeze_gc()
                    await self._until_stopped(stop)

    async def _start(self, closing: AsyncExitStack) -> None:
        await ensure_topics(self.settings)
        self.partitions.start(await ensure_changelog(self.settings))
        closing.push_async_callback(self.partitions.stop)
        closing.push_async_callback(self.watch.stop)
        for follower in self.followers:
            await follower.start()
            closing.push_async_callback(follower.stop)
            await follower.caught_up()
        closing.push_async_callback(self.gaps.stop)
        self.app.finalize()
        read_again_from_commits(self.app)
        leave_stuck_streams_to_readiness(self.app)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.app.on_rebalance_complete.connect(self._on_assigned)
        closing.push_async_callback(self.app.stop)
        closing.push_async_callback(self.partitions.leave)
        await self.app.start()

    def _not_ready(self) -> str | None:
        if self.app.should_stop:
            return f"Faust's app has ended: {self.app.crash_reason!r}"
        if not self.assigned or not self.partitions.complete:
            return "state is being recovered"
        following = (follower.not_ready for follower in self.followers)
        problem = self.views.not_ready or next(filter(None, following), None)
        return problem or self._standing_still()

    def _standing_still(self) -> str | None:
        before = time.monotonic() - self.settings.liveness.stalled_s
        stuck = [name for name, since in self.at_work.items() if since < before]
        if stuck:
            return f"a batch of {stuck[0]} takes longer than {self.settings.liveness.stalled_s:g} s"
        return self.reading.not_ready

    async def _positions(self) -> Positions:
        """Of what is fetched; `at_work` tells whether the agents take it."""
        if not self.partitions.complete:
            return {}
        positions: dict[TopicPartition, int | None] = {
            TopicPartition(*tp): None
            for tp in fetched_from(self.app)
            if tp.topic in self.read_topics
        }
        for tp, position in (await self._fetched_until()).items():
            positions[TopicPartition(*tp)] = max(position, self._applied_until(tp))
        for follower in self.followers:
            positions |= await follower.positions()
        return positions

    def _applied_until(self, tp: TP) -> int:
        """More than is fetched where a topic was made anew: that reading begins again."""
        interactions, edits = self.next_offsets.get(tp.partition, (0, 0))
        offsets = {"interactions": interactions, "profile-edits": edits}
        return offsets.get(tp.topic.removeprefix(self.settings.kafka.prefix), 0)

    def _followers(self) -> list[TopicFollower]:
        views = self.views
        return [
            TopicFollower(self.settings, "items", views.texts.on_record, self.metrics),
            TopicFollower(self.settings, "releases", views.release.on_record, self.metrics),
        ]

    async def _until_stopped(self, stop: asyncio.Event) -> None:
        await until_stopped(
            stop,
            every(self.settings.ranking.tick_s, self._serve, self.waiting.ready),
            every(self.settings.trigger.tick_s, self._ask),
            every(TICK_S, self._move),
            every(self.settings.trigger.silent_check_s, self._look_for_silent),
            every(PASSED_OVER_S, self._read_passed_over),
            every(PASSED_OVER_S, self._check_group),
            self.views.keep_fresh(),
            self.reading.watch(),
            *(follower.failed() for follower in self.followers),
            self.partitions.failed(),
            self.watch.failed(),
            self.app.wait_until_stopped(),
        )
        if not stop.is_set():
            raise self._end_of_faust()

    def _end_of_faust(self) -> Exception:
        reason = self.app.crash_reason
        if isinstance(reason, Exception):
            return reason
        return StackError(
            f"Faust's app has ended by itself ({reason!r}); started again, the tracker goes on "
            "from its state"
        )

    # -- agents ---------------------------------------------------------------------------

    def _declare_agents(self) -> None:
        topics = {
            "interactions": self._on_interactions,
            "profiles": self._on_profiles,
            "profile-edits": self._on_edits,
        }
        self.read_topics = {self.settings.topic(name) for name in topics}
        for name, work in topics.items():
            self._declare_agent(name, work)

    def _declare_agent(self, name: str, work: BatchWork) -> None:
        async def agent(stream: StreamT) -> None:
            async for events in batches(self.app, stream):
                self.at_work[name] = time.monotonic()
                try:
                    done = await self._guarded(work, events)
                finally:
                    del self.at_work[name]
                acknowledge(done)  # 4.

        self.app.agent(raw_topic(self.app, self.settings, name), name=name)(agent)

    async def _guarded(self, work: BatchWork, events: list[EventT]) -> list[EventT]:
        """Work a batch; returns the events that are done.

        An exception that left an agent would acknowledge its events: stop the worker instead.
        """
        try:
            return await self._work(work, events)
        except Exception as error:  # noqa: BLE001 (whatever it is, the worker ends with it)
            await self.app.crash(error)
            await asyncio.Event().wait()
            return []

    async def _work(self, work: BatchWork, events: list[EventT]) -> list[EventT]:
        while events:
            await self.partitions.owned({event.message.partition for event in events})
            events = [event for event in events if self._is_ours(event)]
            try:
                await work([row_of(event) for event in events])
                # Also what an earlier try has put, before another partition of it was lost.
                await self.partitions.committed({event.message.partition for event in events})
            except PartitionLost as lost:
                log.info("a batch is worked again: %s", lost)
            except BaseException as error:
                for partition in {event.message.partition for event in events}:
                    self.partitions.lose(partition, error)  # what is half done is not committed
                raise
            else:
                break
        return events

    def _is_ours(self, event: EventT) -> bool:
        """Not so when partitions were given back, at the end or for a new assignment."""
        message = event.message
        ours = message.partition in self.clocks and message.partition in self.partitions
        return ours and message.generation_id == self.assigned

    async def _on_interactions(self, delivered: list[DeliveredRecord]) -> None:
        async with self.turns["interactions"]:
            async for rows in self._complete("interactions", delivered, self._due(INTERACTIONS)):
                await self._take_all_interactions(rows)

    async def _take_all_interactions(self, rows: list[DeliveredRecord]) -> None:
        for _, part in groupby(rows, key=lambda row: row.partition):
            self._take_interactions(list(part))  # 1. and 2.
        await self.partitions.committed(row.partition for row in rows)  # 3.

    def _due(self, kind: int) -> dict[int, int]:
        return {partition: offsets[kind] for partition, offsets in self.next_offsets.items()}

    async def _complete(
        self, agent: str, delivered: list[DeliveredRecord], due: dict[int, int]
    ) -> AsyncIterator[list[DeliveredRecord]]:
        """What of a batch is not applied yet, and what was passed over before it, in slices.

        Raises PartitionLost if a partition is lost meanwhile, also when it is ours again.
        """
        before = dict(self.next_offsets)
        new = [row for row in delivered if row.offset >= due.get(row.partition, 0)]
        async for rows in self.gaps.complete(new, due):
            self._check_unchanged(rows, before)
            self.at_work[agent] = time.monotonic()
            yield rows

    def _check_unchanged(
        self, rows: list[DeliveredRecord], before: Mapping[int, list[int]]
    ) -> None:
        """`next_offsets` has a new list for a partition whenever it was acquired."""
        for partition in {row.partition for row in rows}:
            if self.next_offsets.get(partition) is not before[partition]:
                raise PartitionLost(partition, None)

    def _take_interactions(self, rows: list[DeliveredRecord]) -> None:
        """Rows of one partition."""
        arrivals, refused = self._decode(rows)
        refused += self._apply(arrivals, rows)
        for row, problem in refused:
            self._refuse(row, problem)

    def _decode(
        self, rows: list[DeliveredRecord]
    ) -> tuple[dict[str, list[Arrival]], list[tuple[DeliveredRecord, Misrouted | Rejected]]]:
        partitions = self.settings.kafka.partitions
        tolerance = int(self.settings.windows.future_tolerance_s * 1000)
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
        outcomes: Counter[tuple[str, str]] = Counter()
        arrivals = self._pass_time(arrivals, rows)
        failed = [
            problem
            for user_id, events in arrivals.items()
            for problem in self._apply_each(partition, user_id, events, wall, outcomes)
        ]
        for (kind, outcome), count in outcomes.items():
            self.metrics.events.labels(type=kind, outcome=outcome).inc(count)
        self._measure_lag(rows)
        by_offset = {row.offset: row for row in rows} if failed else {}
        return [(by_offset[arrival.offset], why) for arrival, why in failed]

    def _apply_each(
        self,
        partition: int,
        user_id: str,
        events: list[Arrival],
        wall: int,
        outcomes: Counter[tuple[str, str]],
    ) -> list[tuple[Arrival, Rejected]]:
        """Apply a user's events together; if that fails, each alone. Returns those that fail."""
        counted: Counter[tuple[str, str]] = Counter()
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
        outcomes: Counter[tuple[str, str]],
    ) -> None:
        user, clock = self.users.get(partition, user_id), self.clocks[partition]
        with whole_or_not(user):
            forgotten_until = user.head.forgotten_until
            inserted = apply_interactions(user, events, self.settings.windows, outcomes)
            forgotten = user.head.forgotten_until != forgotten_until
            if inserted or forgotten:
                self.due.look_at(partition, user, clock, wall, moved_at=time.monotonic())
                self.waiting.add((partition, user_id))
            if forgotten:
                self.users.save_whole(partition, user)
            elif inserted:
                self.users.save(partition, user, inserted)

    def _pass_time(
        self, arrivals: dict[str, list[Arrival]], rows: list[DeliveredRecord]
    ) -> dict[str, list[Arrival]]:
        """Returns the arrivals with the time of their partition."""
        partition, timed = rows[0].partition, defaultdict(list)
        ordered = sorted(chain.from_iterable(arrivals.values()), key=attrgetter("offset"))
        clock, user_of = self.clocks[partition], partial(self.users.get, partition)
        passing = pass_time(clock, ordered, user_of, self.settings.windows)
        self.clocks[partition] = passing.clock
        self.far_ahead.note(partition, passing.far_ahead)
        for event in passing.arrivals:
            timed[event.interaction.user_id].append(event)
        self.next_offsets[partition][INTERACTIONS] = rows[-1].offset + 1
        self._save_clock(partition)
        return timed

    def _save_clock(self, partition: int) -> None:
        value = encode_clock(self.clocks[partition], *self.next_offsets[partition])
        self.partitions.write(partition, [(CLOCK_KEY, value)])

    def _refuse(self, row: DeliveredRecord, problem: Misrouted | Rejected) -> None:
        if isinstance(problem, Rejected):
            self.metrics.events.labels(type="unknown", outcome=problem.reason).inc()
            self._dead_letter(row, problem)
            return
        self.metrics.events.labels(type=problem.interaction.type.value, outcome="forwarded").inc()
        size, headers = len(row.value or b""), forwarded_headers(row.headers)
        too_large = size + HEADER_BYTES + KEY_BYTES > self.settings.kafka.max_message_bytes
        if too_large or _digest(row.value) in self.too_large_to_forward:
            self._dead_letter(row, Rejected("too_large", f"{size} bytes cannot be sent on"))
            return
        message = Output(
            self.settings.topic("interactions"),
            problem.interaction.user_id.encode(),
            row.value,
            problem.partition,
            headers,
        )
        self.partitions.send(row.partition, message)

    def _dead_letter(self, row: DeliveredRecord, why: Rejected) -> None:
        if why.reason == "failed":
            self.metrics.failed.labels(topic=row.topic).inc()
        key, value, headers = dead_letter(row, why)
        topic = self.settings.topic("dead-letters")
        message = Output(topic, key, value, headers=tuple(headers))
        if (row.topic, row.partition, row.offset) not in self.lost_letters:
            self.partitions.send(row.partition, message)

    def _read(self, row: DeliveredRecord, schema: type[M]) -> M | Removal | Rejected:
        return decode_keyed(row, schema, self.settings.kafka.partitions)

    async def _each(
        self, rows: list[DeliveredRecord], take: Callable[[DeliveredRecord], Rejected | None]
    ) -> None:
        """Let each row be taken; a dead letter for those that are refused or fail."""
        found = [(row, attempted(row, partial(take, row))) for row in rows]  # 1.
        for row, why in found:  # 2.
            if why is not None:
                self._dead_letter(row, why)
        await self.partitions.committed(row.partition for row in rows)  # 3.

    async def _on_profiles(self, delivered: list[DeliveredRecord]) -> None:
        async for rows in self._complete("profiles", delivered, self.next_profiles):
            await self._each(rows, self._take_profile)
            self.next_profiles.update({row.partition: row.offset + 1 for row in rows})

    def _take_profile(self, row: DeliveredRecord) -> Rejected | None:
        found = self._read(row, Profile)
        if isinstance(found, Profile):
            self._keep_newest(row.partition, found)
        elif isinstance(found, Removal):
            self.users.save_profile(row.partition, self.users.get(row.partition, found.id), None)
        return found if isinstance(found, Rejected) else None

    def _keep_newest(self, partition: int, profile: Profile) -> None:
        user = self.users.get(partition, profile.user_id)
        record = ProfileRecord.of(profile)
        if not is_current(user, record):
            self.metrics.profiles_taken.labels(outcome="forgotten").inc()
            if user.profile is None:  # else the last of its key in the topic would be this one
                self._forget_profile(partition, user)
            return
        if user.profile is not None and user.profile.newness() >= record.newness():
            self.metrics.profiles_taken.labels(outcome="older").inc()
            return
        self.migration.look_at((partition, profile.user_id), user.head, record)
        self.users.save_profile(partition, user, record)
        self.metrics.profiles_taken.labels(outcome="taken").inc()
        if user.head.requests == record.number:
            waited = time.time_ns() // 1_000_000 - user.head.applied_time
            self.metrics.event_to_profile.observe(max(0, waited) / 1000)

    async def _on_edits(self, delivered: list[DeliveredRecord]) -> None:
        async with self.turns["profile-edits"]:
            async for rows in self._complete("profile-edits", delivered, self._due(EDITS)):
                await self._take_all_edits(rows)

    async def _take_all_edits(self, rows: list[DeliveredRecord]) -> None:
        await self._each(rows, partial(self._take_edit, time.time_ns() // 1_000_000))

    def _take_edit(self, wall: int, row: DeliveredRecord) -> Rejected | None:
        self.next_offsets[row.partition][EDITS] = row.offset + 1
        self._save_clock(row.partition)
        edit = self._read(row, ProfileEdit)
        if isinstance(edit, ProfileEdit):
            self._apply_edit(row, edit, wall)
        return edit if isinstance(edit, Rejected) else None

    def _apply_edit(self, row: DeliveredRecord, edit: ProfileEdit, wall: int) -> None:
        user = self.users.get(row.partition, edit.user_id)
        with whole_or_not(user):
            if apply_edit(user, edit, row.offset, row.timestamp):
                self.due.look_at(row.partition, user, self.clocks[row.partition], wall)
                self.waiting.add((row.partition, edit.user_id))
                self.users.save(row.partition, user)
                if edit.action == "forget":
                    self._forget_profile(row.partition, user)

    def _forget_profile(self, partition: int, user: User) -> None:
        """Out of the state, and by a tombstone out of topic `profiles` and the vector index."""
        self.users.save_profile(partition, user, None)
        topic, key = self.settings.topic("profiles"), user.user_id.encode()
        self.partitions.send(partition, Output(topic, key, None, partition))

    # -- loops ----------------------------------------------------------------------------

    async def _serve(self) -> None:
        self.metrics.waiting_users.set(len(self.waiting))
        if not self._catching_up():
            while await self.recommender.serve(self.clocks) == self.settings.ranking.batch:
                await asyncio.sleep(0)

    async def _ask(self) -> None:
        if not self._catching_up():
            await self.requester.ask(self.clocks)

    async def _move(self) -> None:
        if not self._catching_up():
            await self.migration.step()

    async def _look_for_silent(self) -> None:
        self.requester.wake_silent(self.clocks)

    def _catching_up(self) -> bool:
        if self.assigned is None or not self.partitions.complete:
            return True
        return sum(self.lags.values()) > self.settings.trigger.catch_up_lag

    def _measure_lag(self, rows: list[DeliveredRecord]) -> None:
        topic, partition, position = rows[-1].topic, rows[-1].partition, rows[-1].offset + 1
        end = end_of(self.app, TP(topic, partition)) or position
        self.lags[partition] = max(0, end - position)
        self.metrics.lag.labels(topic=topic, partition=str(partition)).set(self.lags[partition])

    # -- what was passed over ---------------------------------------------------------------

    async def _read_passed_over(self) -> None:
        """Apply what lies before Faust's position and was not delivered.

        That is what Faust dropped at the end of a topic, where no later record shows the gap (see
        `GapReader`), and everything that was committed if the changelog is lost. Edits first.
        """
        take = {"profile-edits": self._take_all_edits, "interactions": self._take_all_interactions}
        kinds = {"profile-edits": EDITS, "interactions": INTERACTIONS}
        for name, kind in kinds.items():
            async with self.turns[name]:
                for tp, position in (await self._fetched_until()).items():
                    if tp.topic == self.settings.topic(name) and self._stands(tp, kind, position):
                        await self._read_up_to(tp, kind, position, take[name])

    def _stands(self, tp: TP, kind: int, position: int) -> bool:
        """Whether nothing was applied since the last look, though something is before `position`.

        What has been read once and held no record, as a transaction's marker, is left alone.
        """
        now = self.next_offsets.get(tp.partition, [position, position])[kind], position
        before, self.looked_at[tp] = self.looked_at.get(tp), now
        return now == before and now[0] < position and now != self.read_until.get(tp)

    async def _check_group(self) -> None:
        """Raise what aiokafka has met while joining the group; Faust never asks, and it waits."""
        thread = self.app.consumer._thread

        async def check() -> None:
            thread._ensure_consumer()._coordinator.check_errors()

        await thread.call_thread(check)

    async def _read_up_to(
        self,
        tp: TP,
        kind: int,
        position: int,
        take: Callable[[list[DeliveredRecord]], Awaitable[None]],
    ) -> None:
        before, first = dict(self.next_offsets), self.next_offsets[tp.partition][kind]
        async for rows, _ in self.gaps.between(TopicPartition(*tp), first, position):
            if rows:
                self._check_unchanged(rows, before)
                await take(rows)
        if tp.partition in self.next_offsets:
            self.read_until[tp] = self.next_offsets[tp.partition][kind], position

    async def _fetched_until(self) -> dict[TP, int]:
        """Faust's position in each partition that was fetched from; to ask for others blocks it."""
        return {
            tp: await self.app.consumer.position(tp) or 0
            for tp, fetched in fetched_from(self.app).items()
            if fetched and tp.topic in self.read_topics
        }

    # -- assignment -----------------------------------------------------------------------

    async def _on_revoked(self, _app: faust.App, *_: object, **__: object) -> None:
        """Commit what was applied before another worker takes over."""
        self.assigned = None
        await self.partitions.leave()
        self._drop_partitions_except(set())

    async def _on_assigned(self, app: faust.App, *_: object, **__: object) -> None:
        """Faust has given us partitions and waits for their state before it delivers."""
        try:
            topic = self.settings.topic("interactions")
            partitions = assigned_partitions(app, topic)
            self._drop_partitions_except(set())
            for partition in self.next_profiles.keys() - partitions:
                del self.next_profiles[partition]
            self.migration.begin(self.views.release_of_lists)
            self.assigned = app.consumer_generation_id
            await self.partitions.acquire(partitions)
        except Exception as error:  # noqa: BLE001 (Faust would only log it)
            await app.crash(error)

    def _on_lost(self, partition: int, error: BaseException) -> None:
        """Forget what is known of a partition; it is read again when it is ours again."""
        self._drop_partitions_except(self.clocks.keys() - {partition})
        if isinstance(error, OutputsRefused):
            self._note_refused(error)

    def _drop_partitions_except(self, partitions: set[int]) -> None:
        for partition in self.clocks.keys() - partitions:
            del self.clocks[partition]
            self.users.forget_cached(partition)
            del self.next_offsets[partition]
            self.lags.pop(partition, None)
        self.waiting.drop_partitions_except(partitions)
        self.due.drop_partitions_except(partitions)

    def _note_refused(self, refused: OutputsRefused) -> None:
        """Give up what Kafka refuses for good; what is not the message's fault ends the role."""
        for output in refused.outputs:
            if output.topic == self.settings.topic("dead-letters"):
                self._lose_letter(output, refused.error)
            elif not isinstance(refused.error, TOO_LARGE) or not self._give_up(
                output, refused.error
            ):
                where = f"topic {output.topic}, key {output.key!r:.80}"
                error = TopicError(
                    f"{where}: Kafka refuses the message ({refused.error!r}); are the topic's "
                    "max.message.bytes and the rights of this user as they were?"
                )
                self.partitions.fail(error)
                return

    def _lose_letter(self, output: Output, error: KafkaError) -> None:
        told = {name: value.decode() for name, value in output.headers}
        self.lost_letters.add(
            (told["palate-topic"], int(told["palate-partition"]), int(told["palate-offset"]))
        )
        self.metrics.dead_letters_lost.labels(reason=told["palate-reason"]).inc()
        log.error(
            "the dead letter of %s/%s@%s (%s: %s) is lost, Kafka refuses it: %r",
            *(told["palate-topic"], told["palate-partition"], told["palate-offset"]),
            *(told["palate-reason"], told["palate-detail"], error),
        )

    def _give_up(self, output: Output, error: KafkaError) -> bool:
        """A message too large for its topic: it is its user's, and the others' go on."""
        topic = output.topic.removeprefix(self.settings.kafka.prefix)
        loops = {
            "profile-requests": self.requester.quarantine,
            "recommendations": self.recommender.quarantine,
        }
        if topic == "interactions":  # then it becomes a dead letter
            self.too_large_to_forward.add(_digest(output.value))
        elif topic in loops and output.value is not None and output.partition is not None:
            place = output.partition, (output.key or b"").decode()
            loops[topic].refuse(place, output.value, error)
        else:
            return False
        return True

    async def _on_acquired(self, partition: int) -> None:
        """The partition is ours and its state complete: read what is owed."""
        await self._read_partition(partition)

    async def _read_partition(self, partition: int) -> None:
        clock, *offsets = self._clock_of(partition)
        await self._check_continuity(partition, "interactions", offsets[0])
        await self._check_continuity(partition, "profile-edits", offsets[1])
        self.next_offsets[partition] = offsets
        self.clocks[partition] = clock
        wall = time.time_ns() // 1_000_000
        profiles = dict(self.users.profiles(partition))
        for user_id, head in self.users.heads(partition):
            place = (partition, user_id)
            newest = head.tail[-1].timestamp if head.tail else NEVER
            with self.requester.quarantine.sparing(place):
                self.due.look_at_head(place, head, newest, clock, wall)
            with self.migration.quarantine.sparing(place):
                self.migration.look_at(place, head, profiles.get(user_id))

    def _clock_of(self, partition: int) -> tuple[PartitionClock, int, int]:
        """Without a clock that can be read, all records are read again; users know what is new."""
        try:
            return decode_clock(self.partitions.get(partition, CLOCK_KEY))
        except RecordDamaged as error:
            self.users.note_damaged(partition, "the partition's clock", error)
            return decode_clock(None)

    async def _check_continuity(self, partition: int, name: str, applied: int) -> None:
        topic, key = self.settings.topic(name), source_key(name)
        beginning, end = await self.gaps.range(topic, partition)
        found = (await self.watch.ids()).get(topic, "")
        known = (self.partitions.get(partition, key) or b"").decode(errors="replace")
        kept = Kept.by_tracker(topic, partition, applied, known)
        present = Present(found, beginning, end)
        gap = beginning > applied
        accept = gap and not applied and not await self._state_was_lost(topic, partition)
        check_continuity(kept, present, accept_gap=accept)
        if found and found != known:
            self.partitions.write(partition, [(key, found.encode())])

    async def _state_was_lost(self, topic: str, partition: int) -> bool:
        """Whether a state without anything of a topic is no beginning."""
        place, group = TopicPartition(topic, partition), group_id(self.settings, "tracker")
        if not await has_committed(self.settings, group, place):
            return False
        log.error(
            "partition %d: %s was read, and the state holds nothing of it: its changelog was lost",
            partition,
            topic,
        )
        return True


def _digest(value: bytes | None) -> bytes:
    return hashlib.sha256(value or b"").digest()
