"""Profilers through a promotion and a rollback, on a real broker; the indexer is a stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.promotion import CandidateProgress, Topic, promote, releases_topic, rollback
from models.errors import ReleaseError
from models.fakes import FakeEncoder, HashEmbedder, MemoryReleaseStore
from models.ports import Adapter, CanaryLine, Release
from models.release.store import base_release
from models.settings import Settings
from streams.profiler.release_loader import Sources
from streams.releases import announce
from tests.canaries import canary_of
from tests.conftest import MakeSettings
from tests.integration.test_profiler import GROUNDED, Gated, Running, Wire, profiler
from tests.patience import NEVER_S
from tests.streams.profiler.requests import AS_OF, request

pytestmark = pytest.mark.service
TEXTS = [("Likes:", " white hanging lantern"), ("Now:", " lunch bag; paper chain")]
OWN_DIMENSION = 32


class World:
    """A store with base-0 and, when asked, others; engines and what the indexer would say."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.store = settings, MemoryReleaseStore()
        self.files = {"adapter": folder / "adapter", "embedder": folder / "embedder"}
        for name, path in self.files.items():
            path.mkdir()
            (path / "weights").write_text(name)
        self.store.publish(base_release(settings, AS_OF))
        self.sources = Sources(self.store, lambda _: HashEmbedder(OWN_DIMENSION, "own"))

    async def release(self, name: str) -> Release:
        base = base_release(self.settings, AS_OF + 1)
        made = replace(base, id=name, adapter="adapter", embedder="embedder")
        return self.store.publish(replace(made, canary=await self.canary(name)), self.files)

    async def canary(self, name: str) -> tuple[CanaryLine, ...]:
        encoder = FakeEncoder()
        await encoder.prepare(Adapter(name, self.files["adapter"]))
        return await canary_of(encoder, TEXTS, name)

    def profiler(self, encoder: FakeEncoder, settings: Settings | None = None) -> Any:
        return profiler(settings or self.settings, encoder, sources=self.sources)

    async def indexed(self, topic: Topic, release: Release) -> None:
        """What the indexer says once it has seen the candidate."""
        await topic.releases.until(lambda releases: releases.candidate == release.id)
        for step in ("items-ready", "profiles-ready"):
            await announce(topic.producer, self.settings, release, step, "indexer")

    async def promoted(
        self, topic: Topic, release: Release, **options: Any
    ) -> list[CandidateProgress]:
        seen: list[CandidateProgress] = []
        indexing = asyncio.create_task(self.indexed(topic, release))
        await promote(topic, self.store, release.id, say=seen.append, **options)
        await indexing
        return seen


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    profile = {"engine": "openai", "retries": 1, "retry_after_s": 0.1, "in_flight": 8}
    return make_settings(kafka={"partitions": 2}, profile=profile)


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> World:
    return World(settings, tmp_path)


def run(world: World, scenario: Callable[[Wire, Topic], Coroutine[Any, Any, None]]) -> None:
    async def opened() -> None:
        async with opened_wire(world) as (wire, topic):
            await scenario(wire, topic)

    asyncio.run(opened())


@asynccontextmanager
async def opened_wire(world: World) -> AsyncIterator[tuple[Wire, Topic]]:
    async with Wire(world.settings).open() as wire:
        await wire.serve()
        async with releases_topic(world.settings) as topic:
            yield wire, topic


async def until_member(topic: Topic, count: int) -> None:
    while len(await topic.live_profilers()) < count:
        await asyncio.sleep(0.05)


async def written_with(wire: Wire, release: str) -> None:
    """Ask for profiles until one is of `release`: the profiler hears of it when Kafka tells."""
    while not (wire.profiles and wire.profiles[-1].release == release):
        user = f"after-{len(wire.profiles)}"
        await wire.ask(request(user))
        await wire.until(lambda: wire.of(user))  # noqa: B023


def good() -> FakeEncoder:
    return FakeEncoder(otherwise=lambda _: GROUNDED)


def test_a_promotion_changes_adapter_and_embedder_together_and_loses_no_work(
    world: World,
) -> None:
    async def scenario(wire: Wire, topic: Topic) -> None:
        encoder = Gated()
        async with world.profiler(encoder):
            await until_member(topic, 1)
            await wire.ask(request("before"))
            await wire.until(lambda: encoder.prompts)
            # The gate holds the request under way and the warm-up; it opens for the latter.
            promoting = asyncio.create_task(
                world.promoted(topic, await world.release("taste-1"), within_s=NEVER_S)
            )
            await wire.until(lambda: len(encoder.prompts) == 1 + len(TEXTS))
            encoder.gate.set()
            await promoting
            await wire.until(lambda: set(encoder.adapters) == {"taste-1"})
            await wire.until(lambda: wire.of("before"))
            await written_with(wire, "taste-1")
        for profile in wire.profiles:
            own = profile.release == "taste-1"
            assert profile.model == ("taste-1" if own else "fake")
            assert len(profile.vector) == (OWN_DIMENSION if own else HashEmbedder().dimension)
            assert profile.vector_release == profile.release
        assert wire.of("before")[0].release == "base-0"

    run(world, scenario)


def test_a_promotion_waits_for_every_profiler_that_lives(world: World) -> None:
    async def scenario(wire: Wire, topic: Topic) -> None:
        second = world.settings.model_copy(
            update={"metrics": world.settings.metrics.model_copy(update={"profiler_port": 0})}
        )
        slow = good()
        slow.down = True
        async with world.profiler(good()), world.profiler(slow, second):
            await until_member(topic, 2)
            promoting = asyncio.create_task(
                world.promoted(topic, await world.release("taste-1"), within_s=NEVER_S)
            )
            await topic.releases.until(lambda found: bool(found.by("taste-1", "engine-ready")))
            await topic.releases.until(lambda found: found.has("taste-1", "profiles-ready"))
            await asyncio.sleep(0)
            assert not promoting.done()
            slow.down = False
            seen = await promoting
        assert any("1 of 2 profilers load it" in (progress.missing or "") for progress in seen)
        assert len(topic.releases.by("taste-1", "engine-ready")) == 2
        await wire.until(lambda: topic.releases.id == "taste-1")

    run(world, scenario)


def test_a_profiler_that_cannot_show_the_adapter_refuses_and_the_old_release_serves_on(
    world: World,
) -> None:
    async def scenario(wire: Wire, topic: Topic) -> None:
        deaf = good()
        deaf.deaf = True
        async with world.profiler(deaf):
            await until_member(topic, 1)
            with pytest.raises(ReleaseError, match="base model answers"):
                await promote(
                    topic, world.store, (await world.release("taste-1")).id, within_s=NEVER_S
                )
            assert topic.releases.id == "base-0"
            deaf.deaf = False  # mended: it is proven anew
            await world.promoted(topic, world.store.get("taste-1"), within_s=NEVER_S)
        await wire.until(lambda: topic.releases.id == "taste-1")

    run(world, scenario)


def test_a_promotion_that_takes_too_long_ends_with_the_old_release_and_can_be_gone_on_with(
    world: World,
) -> None:
    async def scenario(wire: Wire, topic: Topic) -> None:
        release = await world.release("taste-1")
        async with world.profiler(good()):
            await until_member(topic, 1)
            with pytest.raises(ReleaseError, match=r"item vectors.*'base-0' serves on"):
                await promote(topic, world.store, "taste-1", within_s=0.5)
            assert (topic.releases.id, topic.releases.candidate) == ("base-0", "taste-1")
            await topic.releases.until(lambda found: found.has("taste-1", "engine-ready"))
            await world.promoted(topic, release, within_s=NEVER_S)
            statuses = [step.status for step in topic.releases.steps("taste-1")]
            assert statuses.count("published") == 1
        await wire.until(lambda: topic.releases.id == "taste-1")

    run(world, scenario)


def test_what_does_not_fit_or_is_damaged_is_not_even_published(world: World) -> None:
    async def scenario(wire: Wire, topic: Topic) -> None:
        base = base_release(world.settings, AS_OF)
        world.store.publish(replace(base, id="old", prompt_version="lines-0"))
        with pytest.raises(ReleaseError, match="prompts 'lines-0'"):
            await promote(topic, world.store, "old")
        await world.release("taste-1")
        (world.store.folder("taste-1") / "adapter" / "weights").write_text("damaged")
        with pytest.raises(ReleaseError, match="changed"):
            await promote(topic, world.store, "taste-1")
        with pytest.raises(ReleaseError, match="serves already"):
            await promote(topic, world.store, "base-0")
        assert topic.releases.candidate is None

    run(world, scenario)


def test_a_rollback_returns_to_the_previous_release_at_once(world: World) -> None:
    async def scenario(wire: Wire, topic: Topic) -> None:
        encoder = good()
        async with world.profiler(encoder):
            await until_member(topic, 1)
            with pytest.raises(ReleaseError, match="no release is kept"):
                await rollback(topic, world.store)
            await world.promoted(topic, await world.release("taste-1"), within_s=NEVER_S)
            await topic.releases.until(lambda found: found.id == "taste-1")
            with pytest.raises(ReleaseError, match="only 'base-0' is kept"):
                await rollback(topic, world.store, "taste-0")
            await rollback(topic, world.store)
            await topic.releases.until(lambda found: found.id == "base-0")
            await written_with(wire, "base-0")
        assert wire.profiles[-1].model == "fake"

    run(world, scenario)


def test_a_profiler_that_starts_with_a_candidate_there_proves_it_too(world: World) -> None:
    async def scenario(wire: Wire, topic: Topic) -> None:
        release = await world.release("taste-1")
        await topic.say(release, "published")
        running = Running(world.settings, good(), sources=world.sources)
        await topic.releases.until(lambda found: found.has("taste-1", "engine-ready"))
        await running.drain()

    run(world, scenario)


def test_while_the_release_in_force_is_not_on_this_machine_the_one_before_writes(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streams.profiler.serving_runtime.AGAIN_S", 0.05)

    async def scenario(wire: Wire, topic: Topic) -> None:
        await wire.serve("taste-1")
        async with world.profiler(good()) as running:
            await written_with(wire, "base-0")
            assert running.role.not_ready() is None
            assert "no release 'taste-1'" in caplog.text
            await world.release("taste-1")
            await written_with(wire, "taste-1")

    run(world, scenario)
