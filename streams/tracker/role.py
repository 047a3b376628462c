"""The tracker role: what is delivered is applied, loops serve lists and ask for profiles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Final

from aiokafka.errors import KafkaError

from models.errors import PartitionLost, VectorIndexError
from models.ports import VectorIndex
from models.settings import Settings
from streams.kafka.clients import RETRY_S
from streams.kafka.continuity import TopicWatch
from streams.kafka.topic_follower import TopicFollower
from streams.kafka.topics import CHANGELOG, ensure_changelog
from streams.metrics import TrackerMetrics
from streams.role import StreamRole
from streams.service import freeze_gc, until_stopped
from streams.tracker.assignment import Assignment, Recovery
from streams.tracker.delivery import BatchWork, Delivery
from streams.tracker.gaps import GapReader
from streams.tracker.intake import TrackerIntake
from streams.tracker.partition_takeover import Partitions
from streams.tracker.partition_writer import OutputsRefused
from streams.tracker.passed_over import PassedOver
from streams.tracker.profile_requests import ProfileRequester
from streams.tracker.readiness import BatchTimes, Readiness
from streams.tracker.recommendations import Recommender
from streams.tracker.refusals import Refusals
from streams.tracker.release_migration import TICK_S, ReleaseMigration
from streams.tracker.runtime import FaustRuntime
from streams.tracker.serving_views import ServingViews
from streams.tracker.working_set import WorkingSet

log = logging.getLogger(__name__)

PASSED_OVER_S: Final = 5.0  # between two looks for what Faust has passed over
READ = ("interactions", "profile-edits", "profiles", "items", "releases")  # topics


class TrackerRole(StreamRole):
    """One tracker worker."""

    def __init__(
        self,
        settings: Settings,
        *,
        worker: int,
        index: VectorIndex,
        metrics: TrackerMetrics,
    ) -> None:
        super().__init__("tracker", settings, metrics, settings.metrics.tracker_port + worker)
        self.metrics = metrics
        self.runtime = runtime = FaustRuntime(settings, worker)
        self.partitions = partitions = Partitions(
            settings, worker, metrics, self._on_acquired, self._on_lost
        )
        self.working_set = owned = WorkingSet(settings, partitions, metrics)
        self.views = ServingViews(settings, index, metrics)
        self.followers = [
            TopicFollower(settings, "items", self.views.texts.on_record, metrics),
            TopicFollower(settings, "releases", self.views.release.on_record, metrics),
        ]
        self.gaps, self.watch = GapReader(settings), TopicWatch(settings, (*READ, CHANGELOG))

        shared, text_of = (settings, owned.users, partitions), self.views.texts.text_of
        self.requester = ProfileRequester(*shared, owned.due, text_of, metrics)
        self.recommender = Recommender(*shared, owned.waiting, self.views, metrics)
        self.migration = ReleaseMigration(
            settings, owned.users, owned.waiting, self.views, index, owned.clocks, metrics
        )
        asking, serving = self.requester.quarantine, self.recommender.quarantine

        self.assignment = Assignment(runtime, partitions, owned, self.migration, self.views)
        self.recovery = Recovery(
            settings, partitions, owned, asking, self.migration, self.gaps, self.watch
        )

        quarantines = {"profile-requests": asking, "recommendations": serving}
        self.refusals, times = Refusals(settings, partitions, quarantines, metrics), BatchTimes()
        self.intake = TrackerIntake(
            *(settings, partitions, owned, self.migration, self.refusals),
            *(self.gaps, times, runtime.end_of, metrics),
        )
        self.passed_over = PassedOver(settings, runtime, owned, self.gaps, self.intake)
        self.delivery = Delivery(runtime, partitions, self.assignment, times)
        for topic, work in self.batch_work().items():
            runtime.deliver(topic, partial(self.delivery.take, topic, work))
        self.readiness = Readiness(
            *(settings, runtime, partitions, self.assignment, owned),
            *(self.views, self.followers, times),
        )

    def batch_work(self) -> dict[str, BatchWork]:
        """What is done with the batches of each topic that Faust delivers."""
        return {
            "interactions": self.intake.on_interactions,
            "profiles": self.intake.on_profiles,
            "profile-edits": self.intake.on_edits,
        }

    # -- from start to end ----------------------------------------------------------------

    async def connect(self, closing: AsyncExitStack) -> None:
        """Read items and releases to their ends, then join the group."""
        self.partitions.start(await ensure_changelog(self._settings))
        closing.push_async_callback(self.partitions.stop)
        closing.push_async_callback(self.watch.stop)
        for follower in self.followers:
            await follower.start()
            closing.push_async_callback(follower.stop)
            await follower.caught_up()
        closing.push_async_callback(self.gaps.stop)
        self.runtime.open(self.assignment.on_revoked, self.assignment.on_assigned)
        closing.push_async_callback(self.runtime.stop)
        closing.push_async_callback(self.partitions.leave)  # commits what is applied
        await self.runtime.start()

    async def work(self, stop: asyncio.Event) -> None:
        """Serve and ask, while the runtime delivers. Closing drains."""
        freeze_gc()
        await until_stopped(stop, *self._loops(), *self._watching())
        if not stop.is_set():
            raise self.runtime.ended_by()

    def not_ready(self) -> str | None:
        """Why no work is being done; None if it is."""
        return self.readiness.not_ready

    # -- tasks ----------------------------------------------------------------------------

    def _loops(self) -> list[Coroutine[Any, Any, None]]:
        trigger = self._settings.trigger
        return [
            every(self._settings.ranking.tick_s, self._serve, self.working_set.waiting.ready),
            every(trigger.tick_s, self._ask),
            every(TICK_S, self._move),
            every(trigger.silent_check_s, self._look_for_silent),
            every(PASSED_OVER_S, self.passed_over.read),
            every(PASSED_OVER_S, self.runtime.check_group),
            self.views.keep_fresh(),
        ]

    def _watching(self) -> list[Coroutine[Any, Any, None]]:
        """They end when the role should."""
        return [
            self.readiness.reading.watch(),
            *(follower.failed() for follower in self.followers),
            self.partitions.failed(),
            self.watch.failed(),
            self.runtime.ended(),
        ]

    async def _serve(self) -> None:
        self.metrics.waiting_users.set(len(self.working_set.waiting))
        if not self._catching_up():
            batch = self._settings.ranking.batch
            while await self.recommender.serve(self.working_set.clocks) == batch:
                await asyncio.sleep(0)

    async def _ask(self) -> None:
        if not self._catching_up():
            await self.requester.ask(self.working_set.clocks)

    async def _move(self) -> None:
        if not self._catching_up():
            await self.migration.step()

    async def _look_for_silent(self) -> None:
        self.requester.wake_silent(self.working_set.clocks)

    def _catching_up(self) -> bool:
        if self.assignment.generation is None or not self.partitions.complete:
            return True
        return sum(self.working_set.lags.values()) > self._settings.trigger.catch_up_lag

    # -- what partitions tell -------------------------------------------------------------

    async def _on_acquired(self, partition: int) -> None:
        """The partition is ours and its state complete: read what is owed."""
        await self.recovery.read(partition)

    def _on_lost(self, partition: int, error: BaseException) -> None:
        """Forget what is known of a partition; it is read again when it is ours again."""
        self.working_set.drop(partition)
        if isinstance(error, OutputsRefused):
            self.refusals.note(error)


async def every(
    seconds: float, work: Callable[[], Awaitable[None]], sooner: asyncio.Event | None = None
) -> None:
    """Do `work` every so many seconds, at once when `sooner` is set; after a failure not sooner.

    All others have a turn between two times: what `work` cannot do for want of a partition stays
    owed and sets `sooner` again, and only they can give the partition back or take it over.
    """
    while True:
        try:
            await work()
        except PartitionLost as lost:  # what was owed is read from the state again
            log.debug("%s", lost)
            await asyncio.sleep(seconds)
        except KafkaError as error:  # what was owed still is
            log.warning("Kafka does not take what is owed now (%r); trying on", error)
            await asyncio.sleep(RETRY_S)
        except VectorIndexError as error:  # of a catalogue too large to keep in memory
            log.warning("the vector index does not answer now (%s); trying on", error)
            await asyncio.sleep(RETRY_S)
        await asyncio.sleep(0)
        await _set_or_over(sooner, seconds)


async def _set_or_over(event: asyncio.Event | None, seconds: float) -> None:
    """Wait until the event is set, at most `seconds`; clears it."""
    event = event or asyncio.Event()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()
