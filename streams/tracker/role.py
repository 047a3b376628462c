"""The tracker role: agents that apply, loops that serve and ask.

An agent never waits for retrieval or for a model. What an agent does with a batch:

    1. apply it to the states and write them to RocksDB (no await between read and write)
    2. produce: changelog, dead letters, events sent on
    3. wait for the broker's acknowledgement
    4. acknowledge the batch, so that its offsets may be committed
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import faust
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP, EventT, StreamT

from models.errors import StackError, VectorIndexError
from models.ports import VectorIndex
from models.schemas import Interaction, Profile, ProfileEdit
from models.settings import Settings
from streams.codec import (
    Misrouted,
    Rejected,
    decode_for_user,
    decode_interaction,
    forwarded_headers,
    id_of,
)
from streams.health import HealthServer
from streams.kafka import RETRY_S, dead_letter_send, deliver, producer, start_client
from streams.metrics import TrackerMetrics
from streams.reading import Offsets, Reading
from streams.service import spare_the_collector, until_stopped, working
from streams.topic_follower import TopicFollower
from streams.topics import ensure_topics
from streams.tracker.app import (
    Row,
    acknowledge,
    batches,
    create_app,
    raw_topic,
    read_again_from_commits,
    row_of,
    state_table,
)
from streams.tracker.applying import Arrival, apply_edit, apply_interactions
from streams.tracker.asking import Asker
from streams.tracker.continuity import check_continuity
from streams.tracker.derived import Derived
from streams.tracker.gaps import GapReader
from streams.tracker.moving import TICK_S, Moving
from streams.tracker.owed import DueUsers, WaitingUsers
from streams.tracker.serving import Server
from streams.tracker.state import CLOCK_KEY, ProfileRecord, decode_clock, encode_clock
from streams.tracker.users import Users
from streams.triggers import NEVER, PartitionClock

log = logging.getLogger(__name__)

M = TypeVar("M", Profile, ProfileEdit)


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
        self.table = state_table(self.app, settings)
        self.derived = Derived(settings, index, metrics)
        self.clocks: dict[int, PartitionClock] = {}  # of the partitions that are ours now
        self.next_offsets: dict[int, list[int]] = {}  # partition → [interactions, edits]
        # Not in the state: after a restart the committed offset tells it well enough, for a
        # newer profile takes the place of one that was missed.
        self.next_profiles: dict[int, int] = {}
        self.gaps = GapReader(settings)
        self.waiting = WaitingUsers(settings.ranking.interval_s)
        self.due = DueUsers(settings.trigger, settings.windows)
        self.users = Users(self.table, settings.windows.history_cap)
        self.moving = Moving(
            settings, self.users, self.waiting, self.derived, index, self.clocks, metrics
        )
        self.followers = self._followers()
        self.lags: dict[int, int] = {}  # records behind, by partition of interactions
        port = settings.metrics.tracker_port + worker
        self.health = HealthServer(settings.metrics.host, port, metrics, self._not_ready)
        self.reading = Reading(settings, self._positions)
        self.at_work: dict[str, float] = {}  # agent → since when it has been at its batch
        self._declare_agents()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or the work ends, then drain."""
        async with AsyncExitStack() as closing:
            with working("tracker", stop):
                await self.health.start(stop)
                closing.push_async_callback(self.health.stop)
                await until_stopped(stop, self._start(closing))
                if not stop.is_set():
                    spare_the_collector()
                    await self._until_stopped(stop)

    async def _start(self, closing: AsyncExitStack) -> None:
        await ensure_topics(self.settings)
        self.producer = await start_client(lambda: producer(self.settings))
        closing.push_async_callback(self.producer.stop)
        self.table.connect(self.producer, self.metrics, self._on_assigned)
        self._compose()
        for follower in self.followers:
            await follower.start()
            closing.push_async_callback(follower.stop)
            await follower.caught_up()
        closing.push_async_callback(self.gaps.stop)
        self.app.finalize()
        read_again_from_commits(self.app)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        closing.push_async_callback(self.app.stop)
        closing.push_async_callback(self.table.flushed)
        await self.app.start()

    def _compose(self) -> None:
        shared = (self.settings, self.users)
        text_of = self.derived.texts.text_of
        self.asker = Asker(*shared, self.due, self.producer, text_of, self.metrics)
        self.server = Server(*shared, self.waiting, self.derived, self.producer, self.metrics)

    def _not_ready(self) -> str | None:
        if self.app.should_stop:
            return f"Faust's app has ended: {self.app.crash_reason!r}"
        if not self.app.tables.actives_ready:
            return "state is being recovered"
        if self.derived.shelf is None:
            return self.derived.problem or "no release is serving yet"
        following = (follower.not_ready for follower in self.followers)
        return next(filter(None, following), None) or self._standing_still()

    def _standing_still(self) -> str | None:
        before = time.monotonic() - self.settings.liveness.stalled_s
        stuck = [name for name, since in self.at_work.items() if since < before]
        if stuck:
            return f"a batch of {stuck[0]} takes longer than {self.settings.liveness.stalled_s:g} s"
        return self.reading.not_ready

    async def _positions(self) -> Offsets:
        """Of what is fetched; `at_work` tells whether the agents take it."""
        if not self.app.tables.actives_ready:
            return {}
        positions = {}
        for tp in self.app.consumer.assignment():
            # What was never fetched has no position yet, and asking for it would block Faust.
            if tp.topic in self.read_topics and self.app.consumer.highwater(tp) is not None:
                fetched = await self.app.consumer.position(tp) or 0
                positions[TopicPartition(*tp)] = max(fetched, self._applied_until(tp))
        for follower in self.followers:
            positions |= await follower.positions()
        return positions

    def _applied_until(self, tp: TP) -> int:
        """More than is fetched where a topic was made anew: that reading begins again."""
        interactions, edits = self.next_offsets.get(tp.partition, (0, 0))
        offsets = {"interactions": interactions, "profile-edits": edits}
        return offsets.get(tp.topic.removeprefix(self.settings.kafka.prefix), 0)

    def _followers(self) -> list[TopicFollower]:
        derived = self.derived
        return [
            TopicFollower(self.settings, "items", derived.texts.on_record),
            TopicFollower(self.settings, "releases", derived.release.on_record),
        ]

    async def _until_stopped(self, stop: asyncio.Event) -> None:
        await until_stopped(
            stop,
            self._every(self.settings.ranking.tick_s, self._serve),
            self._every(self.settings.trigger.tick_s, self._ask),
            self._every(TICK_S, self._move),
            self._every(self.settings.trigger.silent_check_s, self._look_for_silent),
            self.derived.keep_fresh(),
            self.reading.watch(),
            *(follower.failed() for follower in self.followers),
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

    @staticmethod
    async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except KafkaError as error:  # what was owed still is
                log.warning("Kafka does not take what is owed now (%r); trying on", error)
                await asyncio.sleep(RETRY_S)
            except VectorIndexError as error:  # of a catalogue too large to keep in memory
                log.warning("the vector index does not answer now (%s); trying on", error)
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(seconds)

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

    def _declare_agent(self, name: str, work: Callable[[list[Row]], Awaitable[None]]) -> None:
        async def agent(stream: StreamT) -> None:
            async for events in batches(self.app, stream):
                self.at_work[name] = time.monotonic()
                await self._guarded(work, events)
                del self.at_work[name]
                acknowledge(events)  # 4.

        self.app.agent(raw_topic(self.app, self.settings, name), name=name)(agent)

    async def _guarded(
        self, work: Callable[[list[Row]], Awaitable[None]], events: list[EventT]
    ) -> None:
        """An exception that left an agent would acknowledge its events: stop the worker instead."""
        try:
            await work([row_of(event) for event in events])
        except Exception as error:  # noqa: BLE001 (whatever it is, the worker ends with it)
            await self.app.crash(error)
            await asyncio.Event().wait()

    async def _on_interactions(self, delivered: list[Row]) -> None:
        due = {partition: offsets[0] for partition, offsets in self.next_offsets.items()}
        rows = await self.gaps.complete(delivered, due)
        arrivals, refused = self._decode(rows)
        with self.table.together():
            self._apply(arrivals, rows)  # 1.
        for row, problem in refused:  # 2.
            await self._refuse(row, problem)
        await self.table.flushed()  # 3.

    def _decode(
        self, rows: list[Row]
    ) -> tuple[dict[tuple[int, str], list[Arrival]], list[tuple[Row, Misrouted | Rejected]]]:
        partitions = self.settings.kafka.partitions
        tolerance = int(self.settings.windows.future_tolerance_s * 1000)
        arrivals: dict[tuple[int, str], list[Arrival]] = defaultdict(list)
        refused: list[tuple[Row, Misrouted | Rejected]] = []
        for row in rows:
            found = decode_interaction(row, partitions, tolerance)
            if isinstance(found, Interaction):
                arrival = Arrival(found, row.offset, row.timestamp)
                arrivals[row.partition, found.user_id].append(arrival)
            else:
                refused.append((row, found))
        return arrivals, refused

    def _apply(self, arrivals: dict[tuple[int, str], list[Arrival]], rows: list[Row]) -> None:
        wall = time.time_ns() // 1_000_000
        outcomes: Counter[tuple[str, str]] = Counter()
        self._move_clocks(arrivals, rows, wall)
        for (partition, user_id), events in arrivals.items():
            user = self.users.get(partition, user_id)
            if events[0].offset <= user.head.applied:  # delivered again
                self.users.save_whole(partition, user)
            inserted = apply_interactions(user, events, self.settings.windows, outcomes)
            if inserted:
                self.users.save(partition, user, inserted)
                self.waiting.add((partition, user_id))
                now = self.clocks[partition].now(wall)
                self.due.look_at(partition, user, now, moved_at=time.monotonic())
        for (kind, outcome), count in outcomes.items():
            self.metrics.events.labels(type=kind, outcome=outcome).inc(count)
        self._measure_lag(rows)

    def _move_clocks(
        self, arrivals: dict[tuple[int, str], list[Arrival]], rows: list[Row], wall: int
    ) -> None:
        for (partition, _), events in arrivals.items():
            newest = max(event.interaction.timestamp for event in events)
            self.clocks[partition] = self.clocks[partition].see(newest, wall)
        for row in rows:
            self.next_offsets[row.partition][0] = row.offset + 1
        for partition in {row.partition for row in rows}:
            self._save_clock(partition)

    def _save_clock(self, partition: int) -> None:
        value = encode_clock(self.clocks[partition], *self.next_offsets[partition])
        self.table.write(partition, [(CLOCK_KEY, value)])

    async def _refuse(self, row: Row, problem: Misrouted | Rejected) -> None:
        if isinstance(problem, Rejected):
            self.metrics.events.labels(type="unknown", outcome=problem.reason).inc()
            await self._dead_letter(row, problem)
            return
        self.metrics.events.labels(type=problem.interaction.type.value, outcome="forwarded").inc()
        await deliver(
            self.producer,
            self.settings.topic("interactions"),
            row.value,
            key=problem.interaction.user_id.encode(),
            partition=problem.partition,
            headers=forwarded_headers(row.headers),
        )

    async def _dead_letter(self, row: Row, why: Rejected) -> None:
        await dead_letter_send(self.producer, self.settings, row, why, self.metrics)

    def _read(self, row: Row, schema: type[M]) -> M | Rejected:
        return decode_for_user(row, schema, self.settings.kafka.partitions)

    async def _on_profiles(self, delivered: list[Row]) -> None:
        rows = await self.gaps.complete(delivered, self.next_profiles)
        self.next_profiles.update({row.partition: row.offset + 1 for row in rows})
        for row in rows:
            found = self._read(row, Profile) if row.value is not None else id_of(row.key)
            if isinstance(found, Rejected):
                await self._dead_letter(row, found)
            elif isinstance(found, Profile):
                self._take_profile(row, found)
            else:  # a tombstone
                user = self.users.get(row.partition, found)
                self.users.save_profile(row.partition, user, None)
        await self.table.flushed()

    def _take_profile(self, row: Row, profile: Profile) -> None:
        user = self.users.get(row.partition, profile.user_id)
        record = ProfileRecord.of(profile)
        if user.profile is not None and user.profile.newness() >= record.newness():
            if user.profile.newness() == record.newness():  # perhaps delivered again
                self.users.save_profile(row.partition, user, user.profile)
            self.metrics.profiles_taken.labels(outcome="older").inc()
            return
        self.users.save_profile(row.partition, user, record)
        self.metrics.profiles_taken.labels(outcome="taken").inc()
        if user.head.requests == record.number:
            waited = time.time_ns() // 1_000_000 - user.head.applied_time
            self.metrics.event_to_profile.observe(max(0, waited) / 1000)
        self.moving.look_at((row.partition, profile.user_id), user.head, record)

    async def _on_edits(self, delivered: list[Row]) -> None:
        wall = time.time_ns() // 1_000_000
        due = {partition: offsets[1] for partition, offsets in self.next_offsets.items()}
        for row in await self.gaps.complete(delivered, due):
            edit = self._read(row, ProfileEdit)
            if isinstance(edit, Rejected):
                await self._dead_letter(row, edit)
                continue
            user = self.users.get(row.partition, edit.user_id)
            if apply_edit(user, edit, row.offset):
                self.users.save(row.partition, user)
                self.due.look_at(row.partition, user, self.clocks[row.partition].now(wall))
                self.waiting.add((row.partition, edit.user_id))
            else:  # delivered again
                self.users.save_whole(row.partition, user)
            self.next_offsets[row.partition][1] = row.offset + 1
            self._save_clock(row.partition)
        await self.table.flushed()

    # -- loops ----------------------------------------------------------------------------

    async def _serve(self) -> None:
        self.metrics.waiting_users.set(len(self.waiting))
        if not self._catching_up():
            while await self.server.serve(self.clocks) == self.settings.ranking.batch:
                await asyncio.sleep(0)

    async def _ask(self) -> None:
        if not self._catching_up():
            await self.asker.ask(self.clocks)

    async def _move(self) -> None:
        if not self._catching_up():
            await self.moving.step()

    async def _look_for_silent(self) -> None:
        self.asker.wake_silent(self.clocks)

    def _catching_up(self) -> bool:
        behind = sum(self.lags.values())
        return not self.app.tables.actives_ready or behind > self.settings.trigger.catch_up_lag

    def _measure_lag(self, rows: list[Row]) -> None:
        positions = {row.partition: row.offset + 1 for row in rows}
        topic = rows[0].topic
        for partition, position in positions.items():
            end = self.app.consumer.highwater(TP(topic, partition)) or position
            self.lags[partition] = max(0, end - position)
            self.metrics.lag.labels(topic=topic, partition=str(partition)).set(end - position)

    # -- assignment -----------------------------------------------------------------------

    async def _on_revoked(self, _app: faust.App, *_: object, **__: object) -> None:
        """Write out what was applied before another worker takes over."""
        await self.table.flushed()
        self.clocks.clear()

    async def _on_assigned(self, partitions: set[int]) -> None:
        """Faust has given us `partitions`, and their state is complete: read what is owed."""
        self.users.forget_cached()
        for partition in self.next_profiles.keys() - partitions:
            del self.next_profiles[partition]
        self.lags.clear()
        self.waiting.drop_partitions_except(set())
        self.due.drop_partitions_except(set())
        self.clocks.clear()
        self.moving.begin(self.derived.release_of_lists)
        for partition in sorted(partitions):
            await self._read_partition(partition)

    async def _read_partition(self, partition: int) -> None:
        clock, *offsets = decode_clock(self.table.read(partition, CLOCK_KEY))
        await self._check_continuity(partition, offsets[0])
        self.next_offsets[partition] = offsets
        self.clocks[partition] = clock
        now = clock.now(time.time_ns() // 1_000_000)
        profiles = dict(self.users.profiles(partition))
        for user_id, head in self.users.heads(partition):
            place = (partition, user_id)
            newest = head.tail[-1].timestamp if head.tail else NEVER
            self.due.look_at_head(place, head, newest, now)
            self.moving.look_at(place, head, profiles.get(user_id))

    async def _check_continuity(self, partition: int, applied: int) -> None:
        topic = self.settings.topic("interactions")
        tp = TP(topic, partition)
        beginnings = await self.app.consumer.earliest_offsets(tp)
        ends = await self.app.consumer.highwaters(tp)
        check_continuity(topic, partition, applied, beginnings[tp] or 0, ends[tp] or 0)
