"""The indexer on a real broker and a real LanceDB; as a process it has the real embedder."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from models.errors import VectorIndexError
from models.fakes import HashEmbedder
from models.ports import VectorRow
from models.ranking.lance_index import LanceIndex
from models.release.store import FolderReleaseStore
from models.schemas import Item, ReleaseAnnouncement
from models.settings import Settings
from streams.codec import decode
from streams.indexer.rebuild import Rebuilt, rebuild_index
from streams.indexer.role import Indexer
from streams.kafka.clients import deliver, producer
from streams.kafka.topics import ensure_topics
from streams.metrics import IndexerMetrics
from tests.conftest import MakeSettings, role_environment
from tests.patience import Deadline
from tests.records import records

pytestmark = pytest.mark.service
ITEMS, PROFILES = "items@base-0", "profiles@base-0"


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    made = make_settings(
        kafka={"partitions": 2},
        index={"micro_batch": 16, "linger_s": 0.1, "optimize_every": 5},
    )
    asyncio.run(ensure_topics(made))
    return made


async def send(settings: Settings, topic: str, values: Mapping[str, bytes | None]) -> None:
    client = producer(settings)
    await client.start()
    try:
        await asyncio.gather(
            *(
                deliver(client, settings.topic(topic), value, key=key.encode())
                for key, value in values.items()
            )
        )
    finally:
        await client.stop()


def items(names: Sequence[str], title: str = "Lamp") -> dict[str, bytes | None]:
    return {name: Item(item_id=name, title=f"{title} {name}").to_json() for name in names}


async def until(condition: Callable[[], bool]) -> None:
    deadline = Deadline()
    while not await asyncio.to_thread(condition):
        assert not deadline.over(), "the condition did not come true"
        await asyncio.sleep(0.05)


def indexer(settings: Settings, writer: LanceIndex) -> Indexer:
    """One with a small embedder."""
    store = FolderReleaseStore(settings.releases_dir)
    return Indexer(settings, writer, HashEmbedder(), store, IndexerMetrics(CollectorRegistry()))


@asynccontextmanager
async def indexing(settings: Settings) -> AsyncIterator[LanceIndex]:
    """An indexer of this process; yields a reader of its index."""
    writer = LanceIndex(settings.lancedb_uri, writer=True)
    role = indexer(settings, writer)
    stop = asyncio.Event()
    task = asyncio.create_task(role.run(stop))
    try:
        yield LanceIndex(settings.lancedb_uri)
    finally:
        stop.set()
        await task
        writer.close()


def announced(settings: Settings) -> list[ReleaseAnnouncement]:
    found = [decode(record.value, ReleaseAnnouncement) for record in records(settings, "releases")]
    return [one for one in found if isinstance(one, ReleaseAnnouncement)]


def test_items_become_rows_and_removed_ones_go(settings: Settings) -> None:
    async def scenario() -> None:
        async with indexing(settings) as reader:
            await send(settings, "items", items([f"i{n}" for n in range(40)]))
            await until(lambda: len(reader.ids(ITEMS)) == 40)
            seen = reader.newer_than(ITEMS, -1)[-1].sequence
            await send(settings, "items", {"i3": None})
            await send(settings, "items", items(["new"], "Mug"))
            await until(lambda: {"new"} <= reader.ids(ITEMS) and "i3" not in reader.ids(ITEMS))
            news = {row.id: row for row in reader.newer_than(ITEMS, seen)}
            assert news["i3"].attributes == {"removed": True}
            assert news["new"].attributes == {"label": "Mug new", "available": True}

    asyncio.run(scenario())


def test_the_first_release_is_announced_once(settings: Settings) -> None:
    async def start_and_stop() -> None:
        async with indexing(settings):
            await until(lambda: any(one.status == "serving" for one in announced(settings)))

    asyncio.run(start_and_stop())
    asyncio.run(start_and_stop())
    steps = announced(settings)
    assert [one.status for one in steps] == ["published", "items-ready", "serving"]
    release = FolderReleaseStore(settings.releases_dir).get("base-0")
    assert {one.manifest_sha256 for one in steps} == {release.manifest_sha256}


def test_bad_items_become_dead_letters_and_the_rest_goes_on(settings: Settings) -> None:
    async def scenario() -> None:
        bad = {"x": b"{", "y": items(["z"])["z"], "n": b'{"item_id":"n"}'}
        async with indexing(settings) as reader:
            await send(settings, "items", {**bad, "big": b"x" * 2_000_000, **items(["good"])})
            await until(lambda: reader.ids(ITEMS) == {"good"})
            await until(lambda: len(records(settings, "dead-letters")) == 4)

    asyncio.run(scenario())
    letters = {record.key: dict(record.headers) for record in records(settings, "dead-letters")}
    reasons = {key: headers["palate-reason"] for key, headers in letters.items()}
    assert reasons == {
        b"x": b"not_json",
        b"y": b"wrong_key",
        b"n": b"invalid",
        b"big": b"too_large",
    }
    assert letters[b"big"]["palate-topic"] == settings.topic("items").encode()


def test_a_lost_index_is_filled_again_from_the_topics(settings: Settings) -> None:
    async def scenario(names: set[str]) -> None:
        async with indexing(settings) as reader:
            await until(lambda: reader.ids(ITEMS) == names)

    asyncio.run(send(settings, "items", items(["a", "b", "c"])))
    asyncio.run(scenario({"a", "b", "c"}))
    writer = LanceIndex(settings.lancedb_uri, writer=True)
    writer.drop(ITEMS)
    writer.close()
    asyncio.run(send(settings, "items", {"b": None}))
    asyncio.run(scenario({"a", "c"}))


def test_rebuilding_drops_what_the_topics_do_not_hold(settings: Settings) -> None:
    async def scenario() -> Rebuilt:
        await send(settings, "items", items(["a", "b"]))
        store = FolderReleaseStore(settings.releases_dir)
        with closing(LanceIndex(settings.lancedb_uri, writer=True)) as index:
            stray = VectorRow("stray", HashEmbedder().embed(["x"])[0], "x", 0, {})
            index.upsert(ITEMS, [stray])
            return await rebuild_index(settings, index, HashEmbedder(), store)

    rebuilt = asyncio.run(scenario())
    assert (rebuilt.release, rebuilt.items, rebuilt.profiles) == ("base-0", 2, 0)
    assert LanceIndex(settings.lancedb_uri).ids(ITEMS) == {"a", "b"}


@contextmanager
def process(settings: Settings, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("ab") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "streams.indexer"],
            env={**os.environ, **role_environment(settings), "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@pytest.mark.model  # two processes load torch
def test_kill_9_loses_nothing_and_a_second_indexer_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    reader = LanceIndex(settings.lancedb_uri)
    names = [f"i{n:03d}" for n in range(200)]
    asyncio.run(send(settings, "items", items(names)))
    with process(settings, tmp_path / "first.log") as first:
        asyncio.run(until(lambda: len(reader.ids(ITEMS)) >= 16))
        with process(settings, tmp_path / "second.log") as second:
            assert second.wait() == 1
        assert "another process writes to the vector index" in (tmp_path / "second.log").read_text()
        first.send_signal(signal.SIGKILL)
        first.wait()
    changed = {**items(["i001"], "Changed"), "i002": None, **items(["late"])}
    asyncio.run(send(settings, "items", changed))
    expected = {*names, "late"} - {"i002"}
    with process(settings, tmp_path / "first.log") as again:
        asyncio.run(
            until(lambda: reader.ids(ITEMS) == expected and label(reader) == "Changed i001")
        )
        again.send_signal(signal.SIGTERM)
        assert again.wait() == 0
    rows = reader.newer_than(ITEMS, -1)
    live = [row for row in rows if not row.attributes.get("removed")]
    assert len(live) == len(expected)  # nothing twice
    assert all(abs(float(row.vector @ row.vector) - 1) < 1e-3 for row in live)


def label(reader: LanceIndex) -> str:
    return str(reader.get(ITEMS, ["i001"])["i001"].attributes["label"])


class FullDisk(LanceIndex):
    """One whose disk is full while `full` is set."""

    full = False

    def upsert(self, table: str, rows: Sequence[VectorRow]) -> None:
        if self.full:
            raise self.explained(table, OSError(errno.ENOSPC, "No space left on device"))
        super().upsert(table, rows)


def test_a_full_disk_is_waited_for_and_said(settings: Settings) -> None:
    async def scenario() -> None:
        writer = FullDisk(settings.lancedb_uri, writer=True)
        role, stop = indexer(settings, writer), asyncio.Event()
        task = asyncio.create_task(role.run(stop))
        await until(lambda: role.not_ready() is None)
        writer.full = True
        await send(settings, "items", items(["a", "b"]))
        await until(lambda: "make room on that disk" in (role.not_ready() or ""))
        writer.full = False
        await until(lambda: role.not_ready() is None)
        await until(lambda: writer.ids(ITEMS) == {"a", "b"})
        stop.set()
        await task
        writer.close()

    asyncio.run(scenario())


def test_a_folder_deleted_under_the_indexer_ends_it_and_is_made_anew_whole(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        writer = LanceIndex(settings.lancedb_uri, writer=True)
        task = asyncio.create_task(indexer(settings, writer).run(asyncio.Event()))
        await send(settings, "items", items(["a", "b"]))
        await until(lambda: writer.ids(ITEMS) == {"a", "b"})
        shutil.rmtree(settings.lancedb_uri)
        await send(settings, "items", items(["c"]))
        with pytest.raises(VectorIndexError, match="is gone"):
            await task
        writer.close()
        async with indexing(settings) as reader:
            await until(lambda: reader.ids(ITEMS) == {"a", "b", "c"})

    asyncio.run(scenario())


def test_a_damaged_table_is_made_anew_at_the_start(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with indexing(settings) as reader:
            await send(settings, "items", items(["a", "b"]))
            await until(lambda: reader.ids(ITEMS) == {"a", "b"})
        for path in Path(settings.lancedb_uri).glob("items*/data/*.lance"):
            path.write_bytes(path.read_bytes()[:50])
        async with indexing(settings) as reader:
            await until(lambda: ids_or_damage(reader) == {"a", "b"})

    asyncio.run(scenario())
    assert "items.base-0.lance): " in caplog.text
    assert "made anew" in caplog.text


def ids_or_damage(reader: LanceIndex) -> set[str] | None:
    """None until the table is made anew."""
    try:
        return reader.ids(ITEMS)
    except VectorIndexError:
        return None
