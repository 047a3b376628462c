from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from models.errors import EmbedderError, EngineError, ReleaseError
from models.fakes import FakeEncoder, HashEmbedder, MemoryReleaseStore
from models.ports import Adapter, Release
from models.release.store import base_release
from models.settings import Settings, load_settings
from streams.profiler import release_loader as loader_module
from streams.profiler.release_loader import ReleaseLoader, Sources
from tests.canaries import canary_of

TEXTS = [("Likes:", " white hanging lantern"), ("Now:", " lunch bag; paper chain")]


@dataclass
class World:
    settings: Settings
    store: MemoryReleaseStore
    encoder: FakeEncoder
    files: dict[str, Path]
    loads: list[Path]

    def load_embedder(self, folder: Path) -> HashEmbedder:
        self.loads.append(folder)
        return HashEmbedder(32, "own")

    def loader(self, encoder: FakeEncoder | None = None, model_hash: str = "") -> ReleaseLoader:
        sources = Sources(self.store, self.load_embedder, model_hash)
        return ReleaseLoader(self.settings, encoder or self.encoder, HashEmbedder(), sources)

    def publish(self, name: str, **fields: Any) -> Release:
        base = base_release(self.settings, 1_600_000_000_000)
        own = {"id": name, "adapter": "adapter", "embedder": "embedder"}
        return self.store.publish(replace(base, **own | fields), self.files)

    async def canary(self, name: str) -> Any:
        await self.encoder.prepare(Adapter(name, self.files["adapter"]))
        lines = await canary_of(self.encoder, TEXTS, name)
        await self.encoder.keep(())
        return lines


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(loader_module, "AGAIN_S", 0.001)
    files = {"adapter": tmp_path / "adapter", "embedder": tmp_path / "embedder"}
    for name, folder in files.items():
        folder.mkdir()
        (folder / "weights").write_text(name)
    encoder = FakeEncoder(otherwise=lambda _: " white hanging lantern")
    return World(load_settings(), MemoryReleaseStore(), encoder, files, [])


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_base_0_needs_no_folder(world: World) -> None:
    async def scenario() -> None:
        loaded = await world.loader().of("base-0")
        assert (loaded.release, loaded.adapter, loaded.embedder.model) == ("base-0", None, "hash")

    run(scenario)


def test_a_releases_adapter_and_embedder_are_loaded_once(world: World) -> None:
    async def scenario() -> None:
        world.publish("taste-1")
        loader = world.loader()
        loaded = await loader.of("taste-1")
        assert (loaded.adapter, loaded.embedder.model) == ("taste-1", "own")
        assert world.encoder.adapters["taste-1"].name == "adapter"
        assert await loader.of("taste-1") is loaded
        assert len(world.loads) == 1

    run(scenario)


def test_releases_with_the_same_embedder_share_it(world: World) -> None:
    async def scenario() -> None:
        world.publish("taste-1")
        world.publish("taste-2")
        loader = world.loader()
        first, second = await loader.of("taste-1"), await loader.of("taste-2")
        assert first.embedder is second.embedder

    run(scenario)


def test_an_engine_that_is_away_does_not_keep_a_serving_release_from_being_taken_up(
    world: World,
) -> None:
    async def scenario() -> None:
        world.publish("taste-1")
        world.encoder.down = True
        assert (await world.loader().of("taste-1")).adapter == "taste-1"

    run(scenario)


def test_an_unknown_or_damaged_release_is_refused(world: World) -> None:
    async def scenario() -> None:
        with pytest.raises(ReleaseError, match="no release"):
            await world.loader().of("none")
        world.publish("taste-1")
        (world.store.folder("taste-1") / "embedder" / "weights").write_text("damaged")
        with pytest.raises(ReleaseError, match="changed"):
            await world.loader().of("taste-1")

    run(scenario)


def test_a_candidate_whose_adapter_is_on_is_proven_and_warmed_up(world: World) -> None:
    async def scenario() -> None:
        world.publish("taste-1", canary=await world.canary("taste-1"))
        loader = world.loader()
        assert await loader.prove("taste-1") is None
        assert world.encoder.prompts == ["Likes:", "Now:"]
        assert len(world.loads) == 1
        assert (await loader.of("taste-1")).adapter == "taste-1"
        assert len(world.loads) == 1

    run(scenario)


def test_an_engine_that_ignores_the_adapter_is_found_out(world: World) -> None:
    async def scenario() -> None:
        world.publish("taste-1", canary=await world.canary("taste-1"))
        world.encoder.deaf = True
        assert "base model answers" in (await world.loader().prove("taste-1") or "")

    run(scenario)


def test_a_release_that_was_not_a_candidate_here_is_looked_at_while_it_writes(
    world: World,
) -> None:
    async def scenario() -> None:
        world.publish("taste-1", canary=await world.canary("taste-1"))
        loader = world.loader()
        await loader.of("taste-1")
        world.encoder.down = True
        assert "not answered" in (await loader.doubt("taste-1") or "")
        world.encoder.down, world.encoder.deaf = False, True
        await world.encoder.prepare(Adapter("taste-1", world.files["adapter"]))
        assert "base model answers" in (await loader.doubt("taste-1") or "")
        world.encoder.deaf = False
        assert await loader.doubt("taste-1") is None
        assert await loader.doubt("base-0") is None

    run(scenario)


def test_an_adapter_without_a_canary_is_not_believed(world: World) -> None:
    async def scenario() -> None:
        world.publish("taste-1")
        assert "no canary" in (await world.loader().prove("taste-1") or "")

    run(scenario)


def test_a_new_embedder_alone_needs_no_canary(world: World) -> None:
    async def scenario() -> None:
        world.publish("taste-1", adapter=None)
        assert await world.loader().prove("taste-1") is None

    run(scenario)


def test_extractive_profiles_need_no_adapter(world: World) -> None:
    async def scenario() -> None:
        world.publish("taste-1")
        sources = Sources(world.store, world.load_embedder)
        loader = ReleaseLoader(world.settings, None, HashEmbedder(), sources)
        assert await loader.prove("taste-1") is None
        assert (await loader.of("taste-1")).adapter is None

    run(scenario)


def test_an_adapter_of_other_weights_is_not_loaded(world: World) -> None:
    async def scenario() -> None:
        world.publish("taste-1", base_model_hash="aa" * 32)
        assert "other weights" in (await world.loader(model_hash="bb" * 32).prove("taste-1") or "")
        assert world.encoder.adapters == {}

    run(scenario)


def test_proving_waits_for_an_engine_that_is_away(world: World) -> None:
    async def scenario() -> None:
        world.publish("taste-1", canary=await world.canary("taste-1"))
        world.encoder.down = True
        check = asyncio.create_task(world.loader().prove("taste-1"))
        while not world.loads:
            await asyncio.sleep(0.001)
        assert not check.done()
        world.encoder.down = False
        assert await check is None

    run(scenario)


def test_what_cannot_be_loaded_is_an_error_with_its_reason(world: World) -> None:
    class Refusing(FakeEncoder):
        async def prepare(self, adapter: Adapter) -> None:
            raise EngineError("it takes no adapters")

    def broken(_: Path) -> HashEmbedder:
        raise EmbedderError("the embedder cannot be loaded")

    async def scenario() -> None:
        world.publish("taste-1")
        loader = ReleaseLoader(
            world.settings, world.encoder, HashEmbedder(), Sources(world.store, broken)
        )
        with pytest.raises(EmbedderError):
            await loader.prove("taste-1")
        with pytest.raises(EngineError, match="no adapters"):
            await world.loader(Refusing()).of("taste-1")

    run(scenario)


def test_what_is_not_kept_is_given_back(world: World) -> None:
    async def scenario() -> None:
        for name in ("taste-1", "taste-2"):
            (world.files["embedder"] / "weights").write_text(name)
            world.publish(name)
        loader = world.loader()
        await loader.of("taste-1")
        second = await loader.of("taste-2")
        await loader.keep({"taste-2"})
        assert set(world.encoder.adapters) == {"taste-2"}
        assert await loader.of("taste-2") is second
        await loader.of("taste-1")
        assert len(world.loads) == 3

    run(scenario)
