"""The profiler: requests in, profiles out, the lowest unfinished offset committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

from prometheus_client import CollectorRegistry

from models.settings import Settings
from streams.continuity import TopicWatch
from streams.kafka import producer, start_client
from streams.metrics import ProfilerMetrics
from streams.profiler.answering import Answering
from streams.profiler.kits import Kits
from streams.profiler.proving import Proving, ServingKit
from streams.profiler.repaying import Repaying
from streams.profiler.replica import Replica
from streams.profiler.stored import StoredProfiles
from streams.profiler.writing import Deps, Writer
from streams.service import HealthServer, spare_the_collector
from streams.serving_release import ServingRelease
from streams.topic_follower import TopicFollower

log = logging.getLogger(__name__)

MOST_WAITING: Final = 2_000  # users; a request may be 100 KB
DRAIN_S: Final = 20.0  # `palate down` kills after 30


class Profiler:
    """One profiler process."""

    def __init__(self, settings: Settings, deps: Deps, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._deps = deps
        self._registry = registry
        self._metrics = ProfilerMetrics(registry)
        self._stored = StoredProfiles(settings.profile.retry_after_s, settings.kafka.partitions)
        self._release = ServingRelease()
        self._profiles = TopicFollower(settings, "profiles", self._stored.on_record, self._metrics)
        self._releases = TopicFollower(settings, "releases", self._release.on_record, self._metrics)
        self._writer = Writer(settings, deps, self._metrics)
        self._replica = Replica()
        self._kits = Kits(settings, deps.encoder, deps.embedder, deps.sources)
        self._kit = ServingKit(self._kits, self._release)
        self._proving = Proving(settings, self._kits, self._release, self._replica)
        self._watch = TopicWatch(settings, ("profile-requests", "profiles", "releases"))
        self._serving = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises what cannot be survived."""
        async with AsyncExitStack() as closing:
            await self._serve_health(closing)
            answering = await _unless(stop, self._start(closing))
            if answering is None:
                return
            spare_the_collector()
            self._serving = True
            await self._serve(answering, stop)
            await answering.drain(DRAIN_S)

    def not_ready(self) -> str | None:
        """Why requests are not being answered; None if they are."""
        if self._release.id is None:
            return "waiting for a release to be served"
        follower = self._profiles.not_ready or self._releases.not_ready
        return self._kit.problem or follower or (None if self._serving else "joining the group")

    async def _serve_health(self, closing: AsyncExitStack) -> None:
        metrics = self._settings.metrics
        health = HealthServer(metrics.host, metrics.profiler_port, self._registry, self.not_ready)
        await health.start()
        closing.push_async_callback(health.stop)

    async def _start(self, closing: AsyncExitStack) -> Answering:
        closing.push_async_callback(self._watch.stop)
        if self._deps.encoder:
            closing.push_async_callback(self._deps.encoder.close)
        for follower in (self._releases, self._profiles):
            await follower.start()
            closing.push_async_callback(follower.stop)
        await self._profiles.caught_up()
        await self._kit.begin()
        sender = await start_client(lambda: producer(self._settings))
        closing.push_async_callback(sender.stop)
        answering = Answering(
            self._settings,
            self._writer,
            self._stored,
            self._kit,
            sender,
            self._metrics,
            self._replica,
        )
        await answering.intake.start()
        closing.push_async_callback(answering.intake.stop)
        closing.push_async_callback(answering.drain, 0.0)  # nothing is left if it drained before
        return answering

    async def _serve(self, answering: Answering, stop: asyncio.Event) -> None:
        background = [asyncio.create_task(work) for work in self._background(answering)]
        try:
            while not stop.is_set():
                for record in await answering.intake.fetch(full=answering.waiting >= MOST_WAITING):
                    await answering.take_in(record)
                answering.dispatch()
                await answering.intake.commit()  # 5. a restart begins at the lowest unfinished
                answering.raise_failure()
                for task in background:
                    if task.done():
                        task.result()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)

    def _background(self, answering: Answering) -> list[Coroutine[Any, Any, None]]:
        following = [
            self._profiles.failed(),
            self._releases.failed(),
            self._watch.failed(),
            self._kit.follow(),
            self._proving.run(answering.producer),
        ]
        engine = self._writer.engine
        if engine is None:
            return following
        repaying = Repaying(self._settings, engine, self._stored, answering, self._metrics)
        return [*following, engine.watch(), repaying.run()]


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, Answering]) -> Answering | None:
    """What `work` returns, or None if `stop` is set first; `work` is cancelled then."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
