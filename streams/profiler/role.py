"""The profiler: requests in, profiles out, the lowest unfinished offset committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

from prometheus_client import CollectorRegistry

from models.settings import Settings
from streams.kafka.clients import producer, start_client
from streams.kafka.consumption import ConsumptionWatch, Positions
from streams.kafka.continuity import TopicWatch
from streams.kafka.topic_follower import TopicFollower
from streams.metrics import ProfilerMetrics
from streams.profiler.candidate_check import CandidateCheck
from streams.profiler.fallback_retry import FallbackRetry
from streams.profiler.profile_writer import Deps, Writer
from streams.profiler.release_loader import ReleaseLoader
from streams.profiler.replica import Replica
from streams.profiler.serving_runtime import ServingRuntime
from streams.profiler.stored_profiles import StoredProfiles
from streams.profiler.worker import ProfileWorker
from streams.releases import ServingRelease
from streams.role import StreamRole
from streams.service import freeze_gc, until_stopped

MOST_WAITING: Final = 2_000  # users; a request may be 100 KB
TURN_S: Final = 5.0  # a turn of the loop may take so long to end
DRAINING: Final = 0.8  # of the time to drain; the rest is for leaving Kafka


class Profiler(StreamRole):
    """One profiler process."""

    def __init__(self, settings: Settings, deps: Deps, registry: CollectorRegistry) -> None:
        self._deps, self._metrics = deps, ProfilerMetrics(registry)
        super().__init__("profiler", settings, self._metrics, settings.metrics.profiler_port)
        self._stored = StoredProfiles(settings.profile.retry_after_s, settings.kafka.partitions)
        self._release = ServingRelease()
        self._profiles = TopicFollower(settings, "profiles", self._stored.on_record, self._metrics)
        self._releases = TopicFollower(settings, "releases", self._release.on_record, self._metrics)
        self._writer = Writer(settings, deps, self._metrics)
        self._replica = Replica()
        self._loader = ReleaseLoader(settings, deps.encoder, deps.embedder, deps.sources)
        self._loaded = ServingRuntime(self._loader, self._release, self._metrics)
        self._check = CandidateCheck(settings, self._loader, self._release, self._replica)
        self._watch = TopicWatch(settings, ("profile-requests", "profiles", "releases"))
        self._reading = ConsumptionWatch(settings, self._positions)
        self._worker: ProfileWorker | None = None  # once it has asked to join the group
        self._turned = time.monotonic()  # when requests were taken in last

    def not_ready(self) -> str | None:
        """Why requests are not being answered; None if they are."""
        if self._release.id is None:
            return "waiting for a release to be served"
        follower = self._profiles.not_ready or self._releases.not_ready
        return self._loaded.not_ready or follower or self._standing_still()

    def _standing_still(self) -> str | None:
        if self._worker is None or not self._worker.intake.joined:
            return "joining the group"
        limits, profile = self._settings.liveness, self._settings.profile
        if time.monotonic() - self._turned > limits.stalled_s:
            return "requests are not taken in"
        # All tries of a call, and as long again behind others in a batch.
        longest = 3 * profile.timeout_s + limits.stalled_s
        if self._worker.oldest_s > longest:
            return f"a request has been worked on for more than {longest:g} s"
        return self._reading.not_ready

    async def _positions(self) -> Positions:
        """While as many requests wait as may, none are fetched, and that is as it should be."""
        followed = await self._releases.positions() | await self._profiles.positions()
        if self._worker is None or self._worker.waiting >= MOST_WAITING:
            return followed
        return followed | await self._worker.intake.positions()

    async def connect(self, closing: AsyncExitStack) -> None:
        """Read releases and stored profiles to their ends, then join the group."""
        closing.push_async_callback(self._watch.stop)
        if self._deps.encoder:
            closing.push_async_callback(self._deps.encoder.close)
        for follower in (self._releases, self._profiles):
            await follower.start()
            closing.push_async_callback(follower.stop)
        await self._profiles.caught_up()
        await self._loaded.begin()
        sender = await start_client(lambda: producer(self._settings))
        closing.push_async_callback(sender.stop)
        worker = ProfileWorker(
            self._settings,
            self._writer,
            self._stored,
            self._loaded,
            sender,
            self._metrics,
            self._replica,
        )
        await worker.intake.start()
        closing.push_async_callback(worker.intake.stop)
        closing.push_async_callback(worker.drain, 0.0)  # nothing is left if it drained before
        self._worker = worker

    async def work(self, stop: asyncio.Event) -> None:
        """Take requests in and answer them."""
        freeze_gc()
        worker = self._connected
        serving = self._serve(worker, stop)
        await until_stopped(stop, serving, *self._background(worker), grace_s=TURN_S)

    async def drain(self) -> None:
        """Finish the answers under way."""
        await self._connected.drain(self._settings.liveness.drain_s * DRAINING)

    @property
    def _connected(self) -> ProfileWorker:
        assert self._worker is not None, "used before it has connected"
        return self._worker

    async def _serve(self, worker: ProfileWorker, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._turned = time.monotonic()
            for record in await worker.intake.fetch(full=worker.waiting >= MOST_WAITING):
                await worker.take_in(record)
            worker.dispatch()
            await worker.intake.commit()  # 5. a restart begins at the lowest unfinished
            worker.raise_failure()

    def _background(self, worker: ProfileWorker) -> list[Coroutine[Any, Any, None]]:
        following = [
            self._profiles.failed(),
            self._releases.failed(),
            self._watch.failed(),
            self._loaded.follow(),
            self._check.run(worker.producer),
            self._reading.watch(),
        ]
        engine = self._writer.engine
        if engine is None:
            return following
        retry = FallbackRetry(self._settings, engine, self._stored, worker, self._metrics)
        return [*following, engine.watch(), retry.run()]
