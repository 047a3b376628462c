"""With which release a profiler writes while the one in force cannot be loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from models.errors import EmbedderError
from models.fakes import HashEmbedder, MemoryReleaseStore
from models.release.store import base_release
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.metrics import ProfilerMetrics
from streams.profiler import serving_runtime as check
from streams.profiler.release_loader import ReleaseLoader, Sources
from streams.profiler.serving_runtime import ServingRuntime
from streams.releases import ServingRelease
from tests.conftest import MakeSettings
from tests.streams.clients import until

AT = 1_600_000_000_000


class World:
    """A profiler's kit; base-0 serves."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.store = settings, MemoryReleaseStore()
        self.releases, self.metrics = ServingRelease(), ProfilerMetrics(CollectorRegistry())
        loader = ReleaseLoader(settings, None, HashEmbedder(), Sources(self.store, self.load))
        self.loaded = ServingRuntime(loader, self.releases, self.metrics)

    def load(self, folder):  # type: ignore[no-untyped-def]
        raise EmbedderError(f"the embedder {folder.name} cannot be loaded")

    def serve(self, name: str) -> None:
        self.releases.take(ReleaseAnnouncement(release=name, status="serving", at=AT))

    def publish(self, name: str, **changed: object) -> None:
        self.store.publish(replace(base_release(self.settings, AT), id=name, **changed))

    async def follow(self, scenario: Callable[[], Awaitable[None]]) -> None:
        await self.loaded.begin()
        following = asyncio.create_task(self.loaded.follow())
        try:
            await scenario()
            assert not following.done()
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    @property
    def unavailable(self) -> bool:
        return bool(self.metrics.release_unavailable._value.get())


@pytest.fixture
def world(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(check, "AGAIN_S", 0.01)
    return World(make_settings())


def test_the_release_before_writes_on_until_the_folder_comes(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        world.serve("late")
        await until(lambda: world.loaded.problem is not None)
        await asyncio.sleep(0.05)
        assert world.loaded.now().release == "base-0"
        assert world.loaded.not_ready is None
        assert world.unavailable
        assert caplog.text.count("release late is announced as serving") == 1
        world.publish("late")
        await until(lambda: world.loaded.now().release == "late")
        assert world.loaded.problem is None
        assert not world.unavailable

    world.serve("base-0")
    asyncio.run(world.follow(scenario))


def test_a_restart_begins_with_the_release_before(world: World) -> None:
    async def scenario() -> None:
        assert world.loaded.now().release == "base-0"
        assert "base-0 serves on" in (world.loaded.problem or "")

    for name in ("base-0", "ghost", "../x"):
        world.serve(name)
    asyncio.run(world.follow(scenario))


def test_a_release_that_does_not_fit_is_none_to_write_with(world: World) -> None:
    async def scenario() -> None:
        world.serve("other")
        await until(lambda: "embedder.model" in (world.loaded.problem or ""))
        assert world.loaded.now().release == "base-0"
        world.serve("base-0")
        await until(lambda: world.loaded.problem is None)

    world.serve("base-0")
    world.publish("other", embedder="owner/other")
    asyncio.run(world.follow(scenario))


def test_with_nothing_to_write_with_it_waits_and_says_why(world: World) -> None:
    async def scenario() -> None:
        beginning = asyncio.create_task(world.loaded.begin())
        await until(lambda: "no release 'ghost'" in (world.loaded.not_ready or ""))
        world.publish("ghost")
        await beginning
        assert world.loaded.not_ready is None

    world.serve("ghost")
    asyncio.run(scenario())
