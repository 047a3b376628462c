"""What a profiler says of a candidate, and when it says nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.fakes import FakeEncoder, HashEmbedder, MemoryReleaseStore
from models.ports import Adapter
from models.release.store import base_release
from models.schemas import ReleaseAnnouncement
from models.settings import load_settings
from streams.profiler import candidate_check, release_loader
from streams.profiler.candidate_check import CandidateCheck
from streams.profiler.release_loader import ReleaseLoader, Sources
from streams.profiler.replica import Replica
from streams.releases import ServingRelease
from tests.canaries import canary_of
from tests.patience import HANG_S

TEXTS = [("Likes:", " white hanging lantern"), ("Now:", " lunch bag; paper chain")]
CREATED_MS = 1_600_000_000_000


class World:
    """A profiler's readiness, with an engine and a store; what it announces is in `said`."""

    def __init__(self, folder: Path) -> None:
        self.settings, self.store, self.encoder = load_settings(), MemoryReleaseStore(), Counted()
        self.folder = folder / "adapter"
        self.folder.mkdir()
        (self.folder / "weights").write_text("adapter")
        self.releases = ServingRelease()
        self.said: list[tuple[str, str, str | None]] = []

    async def announce(
        self, _producer: Any, _settings: Any, release: str, status: str, _by: str, **more: Any
    ) -> None:
        self.said.append((release, status, more["detail"]))

    async def publish(self, name: str) -> None:
        encoder = FakeEncoder()
        await encoder.prepare(Adapter(name, self.folder))
        canary = await canary_of(encoder, TEXTS, name)
        base = base_release(self.settings, CREATED_MS)
        made = replace(base, id=name, adapter="adapter", canary=canary)
        self.store.publish(made, {"adapter": self.folder})
        self.step(name, "published")

    def step(self, name: str, status: str) -> None:
        step = ReleaseAnnouncement(release=name, status=status, at=CREATED_MS, by="test")
        self.releases.take(step)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():
                await asyncio.sleep(0.001)

    async def more_tries(self) -> None:
        before = self.encoder.tries
        await self.until(lambda: self.encoder.tries > before + 2)


class Counted(FakeEncoder):
    tries = 0

    async def prepare(self, adapter: Adapter) -> None:
        self.tries += 1
        await super().prepare(adapter)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(release_loader, "AGAIN_S", 0.001)
    monkeypatch.setattr(candidate_check, "announce", world.announce)
    return world


def run(world: World, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        sources = Sources(world.store, lambda _: HashEmbedder())
        found = ReleaseLoader(world.settings, world.encoder, HashEmbedder(), sources)
        role = CandidateCheck(world.settings, found, world.releases, Replica())
        working = asyncio.create_task(role.run(None))  # type: ignore[arg-type]
        try:
            await scenario()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}  # no proof outlives the role

    asyncio.run(all_of_it())


def an_hour_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    later = lambda: time.monotonic() + 3_600.0  # noqa: E731
    monkeypatch.setattr(asyncio.get_running_loop(), "time", later)


def test_an_engine_that_is_away_for_an_hour_costs_no_release(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        world.encoder.down = True
        await world.publish("taste-1")
        await world.more_tries()
        an_hour_passes(monkeypatch)
        await world.more_tries()
        assert world.said == []
        world.encoder.down = False
        await world.until(lambda: bool(world.said))
        assert world.said == [("taste-1", "engine-ready", None)]
        assert caplog.text.count("taste-1 waits for the engine") == 1

    run(world, scenario)


def test_an_engine_without_the_adapter_refuses_at_once(world: World) -> None:
    async def scenario() -> None:
        world.encoder.deaf = True
        await world.publish("taste-1")
        await world.until(lambda: bool(world.said))
        ((release, status, detail),) = world.said
        assert (release, status) == ("taste-1", "refused")
        assert "base model answers" in str(detail)

    run(world, scenario)


def test_another_candidate_is_proven_though_the_first_still_waits_for_its_engine(
    world: World,
) -> None:
    class Away(Counted):
        async def prepare(self, adapter: Adapter) -> None:
            self.down = adapter.name == "taste-1"
            await super().prepare(adapter)

    async def scenario() -> None:
        await world.publish("taste-1")
        await world.more_tries()
        await world.publish("taste-2")
        await world.until(lambda: bool(world.said))
        assert world.said == [("taste-2", "engine-ready", None)]

    world.encoder = Away()
    run(world, scenario)


@pytest.mark.parametrize("status", ["refused", "retired", "serving"])
def test_what_is_a_candidate_no_longer_is_not_proven_on(world: World, status: str) -> None:
    async def scenario() -> None:
        world.encoder.down = True
        await world.publish("taste-1")
        await world.more_tries()
        world.step("taste-1", status)
        await asyncio.sleep(0.01)
        tries = world.encoder.tries
        await asyncio.sleep(0.05)
        assert world.encoder.tries == tries
        assert world.said == []

    run(world, scenario)


def test_what_is_published_again_while_its_engine_is_away_is_answered_once(world: World) -> None:
    async def scenario() -> None:
        world.encoder.down = True
        await world.publish("taste-1")
        await world.more_tries()
        world.step("taste-1", "published")
        await world.more_tries()
        world.encoder.down = False
        await world.until(lambda: bool(world.said))
        await asyncio.sleep(0.05)
        assert world.said == [("taste-1", "engine-ready", None)]

    run(world, scenario)


def test_a_role_that_ends_ends_the_proof_under_way(world: World) -> None:
    async def scenario() -> None:
        world.encoder.down = True
        await world.publish("taste-1")
        await world.more_tries()

    run(world, scenario)  # which looks for what is left
    assert world.said == []
