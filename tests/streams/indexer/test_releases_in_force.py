"""A release in force that cannot be kept ends nothing: the one before it serves on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import EmbedderError, ReleaseError
from models.fakes import HashEmbedder
from models.release.store import FolderReleaseStore, base_release
from tests.conftest import MakeSettings
from tests.streams.indexer.arranging import AT, Arranging, step

Scenario = Callable[[Arranging], Awaitable[None]]


@pytest.fixture
def indexer(make_settings: MakeSettings) -> Arranging:
    """base-0 is in the store and serves."""
    settings = make_settings()
    found = Arranging(settings, FolderReleaseStore(settings.releases_dir))
    publish(found, "base-0")
    found.take(step("base-0", "published"), step("base-0", "items-ready"))
    found.take(step("base-0", "serving"))
    return found


def publish(indexer: Arranging, name: str, files: dict[str, Path] | None = None) -> None:
    base = base_release(indexer._settings, AT)
    embedder = "embedder" if files else base.embedder
    indexer.store.publish(replace(base, id=name, embedder=embedder), files)


def run(indexer: Arranging, scenario: Scenario) -> None:
    async def all_of_it() -> None:
        try:
            await scenario(indexer)
        finally:
            await indexer.close()

    asyncio.run(all_of_it())


@pytest.mark.parametrize("name", ["ghost", "../x", ".hidden", "é" * 256, "a\x01b", " "])
def test_the_release_before_serves_on_and_it_is_said_once(
    indexer: Arranging, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(indexer: Arranging) -> None:
        await indexer.turn()
        indexer.take(step(name, "serving", previous="nowhere"))
        for _ in range(3):
            await indexer.turn()
        assert (indexer.release_id, indexer.kept) == ("base-0", {"base-0"})
        assert indexer.said == []  # it is neither refused nor retired: its folder may come
        assert indexer.metrics.release_unavailable._value.get() == 1

    run(indexer, scenario)
    (line,) = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert f"release {name} is announced as serving" in line
    assert "base-0 serves on" in line
    assert "palate releases rollback" in line


def test_a_restart_begins_with_the_release_before(indexer: Arranging) -> None:
    async def scenario(indexer: Arranging) -> None:
        indexer.take(step("ghost", "serving"), step("ghost-2", "serving"))
        await indexer.turn()
        assert (indexer.release_id, indexer.kept) == ("base-0", {"base-0"})

    run(indexer, scenario)


def test_it_is_taken_up_when_its_folder_comes(indexer: Arranging) -> None:
    async def scenario(indexer: Arranging) -> None:
        indexer.take(step("late", "serving"))
        await indexer.turn()
        publish(indexer, "late")
        await indexer.turn()
        assert (indexer.release_id, indexer.kept) == ("late", {"late", "base-0"})
        assert indexer.said == [("late", "items-ready")]
        assert indexer.metrics.release_unavailable._value.get() == 0

    run(indexer, scenario)


def test_going_back_leaves_nothing_of_it(indexer: Arranging) -> None:
    async def scenario(indexer: Arranging) -> None:
        indexer.take(step("ghost", "serving"))
        await indexer.turn()
        indexer.take(step("base-0", "serving", previous="ghost"))
        await indexer.turn()
        assert indexer.said == [("ghost", "retired")]
        assert indexer._releases.in_force == ("base-0",)

    run(indexer, scenario)


def test_a_release_that_is_kept_no_longer_is_written_by_nobody(indexer: Arranging) -> None:
    async def scenario(indexer: Arranging) -> None:
        await indexer.turn()
        (kept,) = indexer._kept.values()
        await indexer.close()
        assert kept.sync.ended

    run(indexer, scenario)


def test_with_nothing_to_serve_it_waits_and_says_why(
    make_settings: MakeSettings,
) -> None:
    other = Arranging(make_settings())

    async def scenario(other: Arranging) -> None:
        other.take(step("ghost", "serving"))
        await other.turn()
        assert (other.release_id, other.kept) == ("", set())
        assert "there is no release 'ghost'" in (other.not_ready() or "")
        assert not other.caught_up.is_set()
        other._from_scratch = True  # palate rebuild-index
        with pytest.raises(ReleaseError, match="ghost"):
            await other.turn()

    run(other, scenario)


@pytest.mark.parametrize("fails", ["to load", "to embed"])
def test_an_embedder_that_does_not_work_keeps_the_release_before(
    indexer: Arranging, tmp_path: Path, fails: str
) -> None:
    class Broken(HashEmbedder):
        def embed(self, texts):  # type: ignore[no-untyped-def]
            raise RuntimeError("index out of range in self")

    def load(folder: Path) -> HashEmbedder:
        if fails == "to load":
            raise EmbedderError(f"{folder} cannot be loaded")
        return Broken(2)

    indexer._embedders._load = load
    (tmp_path / "config.json").write_text("{}")
    publish(indexer, "broken", {"embedder": tmp_path})

    async def scenario(indexer: Arranging) -> None:
        indexer.take(step("broken", "serving"))
        await indexer.turn()
        assert (indexer.release_id, indexer.kept) == ("base-0", {"base-0"})

    run(indexer, scenario)


@pytest.mark.parametrize("damage", ["{", "[]", '{"id": 1}', "\xff", "null"])
def test_a_damaged_manifest_keeps_the_release_before(indexer: Arranging, damage: str) -> None:
    publish(indexer, "hurt")
    path = indexer.store.folder("hurt") / "manifest.json"
    path.write_text(damage)

    async def scenario(indexer: Arranging) -> None:
        indexer.take(step("hurt", "serving"))
        await indexer.turn()
        assert indexer.release_id == "base-0"

    run(indexer, scenario)


def test_a_serving_release_that_is_retired_by_mistake_serves_on(indexer: Arranging) -> None:
    async def scenario(indexer: Arranging) -> None:
        await indexer.turn()
        indexer.take(step("base-0", "retired"))
        await indexer.turn()
        await indexer.turn()
        assert indexer.kept == {"base-0"}
        assert indexer.said == [("base-0", "serving")]  # else compaction would forget it

    run(indexer, scenario)


def test_what_serves_here_outlives_its_own_retirement(indexer: Arranging) -> None:
    async def scenario(indexer: Arranging) -> None:
        await indexer.turn()
        indexer.take(step("ghost", "serving"), step("base-0", "retired"))
        await indexer.turn()
        assert (indexer.release_id, indexer.kept) == ("base-0", {"base-0"})

    run(indexer, scenario)


@pytest.mark.parametrize(
    "status", ["published", "items-ready", "profiles-ready", "engine-ready", "refused", "retired"]
)
@pytest.mark.parametrize("name", ["ghost", "../x", "é" * 256])
def test_any_other_step_of_an_unknown_release_changes_nothing(
    indexer: Arranging, name: str, status: str
) -> None:
    async def scenario(indexer: Arranging) -> None:
        await indexer.turn()
        indexer.take(step(name, status))
        for _ in range(3):
            await indexer.turn()
        assert (indexer.release_id, indexer.kept) == ("base-0", {"base-0"})

    run(indexer, scenario)
