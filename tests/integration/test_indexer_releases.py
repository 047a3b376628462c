"""The indexer makes a candidate's tables beside the serving ones, on a real broker and LanceDB."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from models.errors import EmbedderError
from models.ranking.lance_index import LanceIndex
from models.release.canary import PLAIN
from models.release.store import FolderReleaseStore
from models.settings import Settings
from tests.conftest import MakeSettings
from tests.integration.releasing import (
    SaltedEmbedder,
    Wire,
    indexing,
    load_salted,
    publish,
    wired,
)
from tests.records import records

pytestmark = pytest.mark.service
TITLES = [f"lamp {number}" for number in range(60)]


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    return make_settings(
        kafka={"partitions": 2}, index={"micro_batch": 8, "linger_s": 0.05, "optimize_every": 5}
    )


async def first_release(wire: Wire) -> None:
    await wire.items(TITLES)
    await wire.until(lambda: wire.releases.id == "base-0", "first release")


async def ready(wire: Wire, release: str) -> None:
    await wire.until(lambda: wire.releases.has(release, "profiles-ready"), f"{release} ready")


def vectors(reader: LanceIndex, table: str) -> dict[str, np.ndarray]:
    return {row.id: row.vector for row in reader.get(table, list(reader.ids(table))).values()}


def assert_embedded_by(reader: LanceIndex, release: str, embedder: SaltedEmbedder) -> None:
    found = vectors(reader, f"items@{release}")
    expected = dict(zip(found, embedder.embed(list(found)), strict=True))
    assert all(np.allclose(found[name], expected[name], atol=1e-6) for name in found)


def test_a_candidate_is_made_beside_and_both_are_written_before_and_after_the_switch(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with wired(settings) as wire, indexing(settings):
            reader = LanceIndex(settings.lancedb_uri)
            await first_release(wire)
            await wire.announce(publish(settings, "next-1", "n", 32), "published")
            await ready(wire, "next-1")
            assert reader.ids("items@next-1") == set(TITLES)
            both = ("items@base-0", "items@next-1")
            await wire.items(["before"])
            await wire.until(lambda: all("before" in reader.ids(name) for name in both))
            await wire.announce("next-1", "serving", previous="base-0")
            await wire.send("items", "lamp 3", None)
            await wire.items(["after"])
            await wire.until(
                lambda: all(
                    "after" in reader.ids(name) and "lamp 3" not in reader.ids(name)
                    for name in both
                )
            )
            assert_embedded_by(reader, "base-0", SaltedEmbedder(""))
            assert_embedded_by(reader, "next-1", SaltedEmbedder("n", 32))

    asyncio.run(scenario())


def test_what_is_no_item_is_one_dead_letter_however_many_releases_read_it(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with wired(settings) as wire, indexing(settings):
            reader = LanceIndex(settings.lancedb_uri)
            await wire.send("items", "early", b"{")
            await first_release(wire)
            await wire.announce(publish(settings, "next-1", "n"), "published")
            await ready(wire, "next-1")
            await wire.send("items", "late", b"{")
            await wire.items(["end 0", "end 1", "end 2"])
            await wire.until(lambda: "end 2" in reader.ids("items@next-1"))
        async with wired(settings) as wire, indexing(settings):
            reader = LanceIndex(settings.lancedb_uri)
            await wire.items(["restarted"])
            await wire.until(lambda: "restarted" in reader.ids("items@next-1"))

    asyncio.run(scenario())
    keys = [record.key for record in records(settings, "dead-letters")]
    assert keys.count(b"early") == 1
    assert set(keys) == {b"early", b"late"}


def test_rows_are_copied_where_the_embedder_is_the_same(settings: Settings) -> None:
    async def scenario() -> None:
        made: list[SaltedEmbedder] = []

        def load(folder: Path) -> SaltedEmbedder:
            made.append(load_salted(folder))
            return made[-1]

        async with wired(settings) as wire, indexing(settings, load):
            await first_release(wire)
            await wire.announce(publish(settings, "next-1", "n"), "published")
            await ready(wire, "next-1")
            await wire.announce("next-1", "serving", previous="base-0")
            await wire.announce(publish(settings, "next-2", "n"), "published")
            await ready(wire, "next-2")
            reader = LanceIndex(settings.lancedb_uri)
            assert reader.ids("items@next-2") == set(TITLES)
            assert_embedded_by(reader, "next-2", SaltedEmbedder("n"))
        embedded = [[text for text in one.embedded if text != PLAIN] for one in made]
        assert [len(texts) for texts in embedded] == [len(TITLES), 0]

    asyncio.run(scenario())


def test_a_candidate_that_cannot_be_kept_is_refused_and_the_old_release_goes_on(
    settings: Settings,
) -> None:
    def load(folder: Path) -> SaltedEmbedder:
        raise EmbedderError(f"the embedder {folder.name} cannot be loaded: out of memory")

    async def scenario() -> None:
        async with wired(settings) as wire, indexing(settings, load):
            reader = LanceIndex(settings.lancedb_uri)
            await first_release(wire)
            await wire.announce(publish(settings, "next-1", "n"), "published")
            await wire.until(lambda: wire.releases.has("next-1", "refused"), "refused")
            damaged = publish(settings, "next-2", "n")
            folder = FolderReleaseStore(settings.releases_dir).folder("next-2")
            (folder / "embedder" / "salt.txt").write_text("other 64")
            await wire.announce(damaged, "published")
            await wire.announce("nowhere", "published")
            await wire.until(lambda: wire.releases.has("nowhere", "refused"), "refused")
            await wire.items(["still indexed"])
            await wire.until(lambda: "still indexed" in reader.ids("items@base-0"))
            reasons = {s.release: s.detail or "" for s in wire.steps if s.status == "refused"}
            assert "out of memory" in reasons["next-1"]
            assert "there is no release 'nowhere'" in reasons["nowhere"]
            assert wire.releases.id == "base-0"
            assert reader.version("items@next-1") == 0

    asyncio.run(scenario())


def test_one_put_in_force_before_its_folder_came_serves_when_it_has_come(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.indexer.role.AGAIN_S", 0.05)

    async def scenario() -> None:
        async with wired(settings) as wire:
            reader = LanceIndex(settings.lancedb_uri)
            async with indexing(settings):
                await first_release(wire)
                await wire.announce("late", "serving")
                await wire.items(["behind"])
                await wire.until(lambda: "behind" in reader.ids("items@base-0"))
            async with indexing(settings):  # a restart with that record as the last one
                await wire.items(["restarted"])
                await wire.until(lambda: "restarted" in reader.ids("items@base-0"))
                publish(settings, "late", "n", 32)
                await wire.until(lambda: wire.releases.has("late", "items-ready"), "taken up")
                assert reader.ids("items@late") == {*TITLES, "behind", "restarted"}
                assert_embedded_by(reader, "late", SaltedEmbedder("n", 32))
            assert not any(one.status in ("refused", "retired") for one in wire.steps)

    asyncio.run(scenario())


def test_only_serving_previous_and_candidate_keep_their_tables(settings: Settings) -> None:
    async def scenario() -> None:
        async with wired(settings) as wire, indexing(settings):
            reader = LanceIndex(settings.lancedb_uri)
            await first_release(wire)
            serving = "base-0"
            for number in (1, 2):
                release = publish(settings, f"next-{number}", "n")
                await wire.announce(release, "published")
                await ready(wire, release.id)
                await wire.announce(release.id, "serving", previous=serving)
                serving = release.id
            await wire.until(lambda: any(s.status == "retired" for s in wire.steps), "retired")
            assert [s.release for s in wire.steps if s.status == "retired"] == ["base-0"]
            assert reader.version("items@base-0") == 0
            assert reader.ids("items@next-1") == reader.ids("items@next-2") == set(TITLES)
            assert (wire.releases.id, wire.releases.previous) == ("next-2", "next-1")

    asyncio.run(scenario())


class Stalling(SaltedEmbedder):
    """Embeds some batches, then never again."""

    def __init__(self, batches: int) -> None:
        super().__init__("n")
        self.left = batches
        self.stalled = threading.Event()
        self.go_on = threading.Event()

    def embed(self, texts):  # type: ignore[no-untyped-def]
        if not self.left:
            self.stalled.set()
            self.go_on.wait()
            raise EmbedderError("killed")
        self.left -= 1
        return super().embed(texts)


def test_an_indexer_that_ends_half_way_goes_on_where_it_was(settings: Settings) -> None:
    stalling = Stalling(batches=3)
    finishing = SaltedEmbedder("n")

    async def half_way(wire: Wire) -> None:
        async with indexing(settings, lambda _: stalling) as task:
            await first_release(wire)
            await wire.announce(publish(settings, "next-1", "n"), "published")
            await wire.until(stalling.stalled.is_set, "half of the candidate")
            task.cancel()  # nothing is drained, nothing more is committed
            stalling.go_on.set()
            await asyncio.gather(task, return_exceptions=True)

    async def scenario() -> None:
        async with wired(settings) as wire:
            await half_way(wire)
            assert not wire.releases.has("next-1", "items-ready")
            await wire.items(["late"])
            async with indexing(settings, lambda _: finishing):
                await ready(wire, "next-1")
                reader = LanceIndex(settings.lancedb_uri)
                await wire.until(lambda: "late" in reader.ids("items@next-1"))
                await wire.until(lambda: "late" in reader.ids("items@base-0"))
                assert reader.ids("items@next-1") == {*TITLES, "late"}
                assert_embedded_by(reader, "next-1", SaltedEmbedder("n"))
        assert len(finishing.embedded) < len(TITLES)

    asyncio.run(scenario())
