"""An indexer and a tracker of this process, releases to switch between, and a stand-in profiler.

The embedders are hashes of words, one per release, so that a vector tells whose it is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer, ConsumerRecord
from prometheus_client import CollectorRegistry

from models.fakes import HashEmbedder
from models.ports import Release, Vectors
from models.profile.prompts import PROMPT_VERSION
from models.ranking.lance_index import LanceIndex
from models.release.store import FolderReleaseStore
from models.schemas import (
    Interaction,
    Item,
    Profile,
    ProfileRequest,
    Recommendation,
    ReleaseAnnouncement,
    Sections,
    Sentence,
)
from models.settings import Settings
from streams.indexer.role import Indexer
from streams.kafka.clients import consumer, deliver, producer
from streams.kafka.topics import ensure_topics
from streams.metrics import IndexerMetrics, TrackerMetrics
from streams.releases import ServingRelease, announce
from streams.tracker.role import TrackerRole
from tests.patience import Deadline

NOW = 1_300_000_000_000
SALT = "salt.txt"


class SaltedEmbedder(HashEmbedder):
    """Another embedder for every salt: the same words lie elsewhere."""

    def __init__(self, salt: str, dimension: int = 64) -> None:
        super().__init__(dimension, model=f"hash-{salt}")
        self.salt = salt
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See HashEmbedder."""
        self.embedded += texts
        return super().embed([re.sub(r"\w+", rf"{self.salt}\g<0>", text) for text in texts])


def load_salted(folder: Path) -> SaltedEmbedder:
    """The embedder of a release's folder: salt and dimension."""
    salt, dimension = (folder / SALT).read_text().split()
    return SaltedEmbedder(salt, int(dimension))


def publish(settings: Settings, release_id: str, salt: str | None, dimension: int = 64) -> Release:
    """A release folder with an embedder of its own; salt None: with the configured embedder."""
    base = FolderReleaseStore(settings.releases_dir)
    files = {}
    if salt is not None:
        source = settings.data_dir / "made" / release_id
        source.mkdir(parents=True)
        (source / SALT).write_text(f"{salt} {dimension}")
        files = {"embedder": source}
    return base.publish(
        Release(
            id=release_id,
            base_model=settings.profile.model,
            adapter=None,
            embedder=settings.embedder.model if salt is None else "embedder",
            prompt_version=PROMPT_VERSION,
            window_spec=settings.windows.model_dump(mode="json"),
            created_at=f"2026-11-21T00:00:{len(base.ids()):02}Z",
            metrics={},
            kind="trained",
        ),
        files,
    )


class Wire:
    """Sends to the topics, and keeps what comes out of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lists: list[Recommendation] = []
        self.requests: list[ProfileRequest] = []
        self.releases = ServingRelease()
        self.steps: list[ReleaseAnnouncement] = []
        self.profile_release = "base-0"  # with which the stand-in profiler writes
        self.embedders: dict[str, SaltedEmbedder] = {"base-0": SaltedEmbedder("")}
        self.producer: AIOKafkaProducer

    async def send(self, topic: str, key: str, value: bytes | None) -> None:
        await deliver(self.producer, self.settings.topic(topic), value, key=key.encode())

    async def items(self, titles: Sequence[str]) -> None:
        await asyncio.gather(
            *(self.send("items", t, Item(item_id=t, title=t).to_json()) for t in titles)
        )

    async def interact(self, number: int, user: str, item: str) -> None:
        event = Interaction(
            event_id=f"e{number}",
            user_id=user,
            item_id=item,
            type="purchase",
            timestamp=NOW + number * 1000,
        )
        await self.send("interactions", user, event.to_json())

    async def announce(self, release: Release | str, status: str, **more: Any) -> None:
        await announce(self.producer, self.settings, release, status, "test", **more)

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        deadline = Deadline()
        while not condition():
            assert not deadline.over(), f"in vain: {what}"
            await asyncio.sleep(0.02)

    async def read(self, source: Any) -> None:
        async for record in source:
            await self._take(record)

    async def _take(self, record: ConsumerRecord) -> None:
        match record.topic.removeprefix(self.settings.kafka.prefix):
            case "recommendations":
                self.lists.append(Recommendation.model_validate_json(record.value))
            case "profile-requests":
                request = ProfileRequest.model_validate_json(record.value)
                self.requests.append(request)
                await self.send("profiles", request.user_id, self.profile(request).to_json())
            case "releases":
                self.steps.append(ReleaseAnnouncement.model_validate_json(record.value))
                self.releases.on_record(record)

    def profile(self, request: ProfileRequest) -> Profile:
        """What a profiler that knows of no switch answers."""
        text = "; ".join(entry.text for entry in request.windows.long)[:80] or "Nothing."
        vector = self.embedders[self.profile_release].embed([text])[0]
        return Profile(
            profile_id=f"{request.request_id}-{self.profile_release}",
            user_id=request.user_id,
            version=request.number,
            as_of=request.as_of,
            sections=Sections(stable=(Sentence(text=text),)),
            text=text,
            release=self.profile_release,
            model="stand-in",
            request_id=request.request_id,
            rule=request.rule,
            prompt_version=PROMPT_VERSION,
            prompt_hash="h",
            windows_hash=request.windows_hash,
            applied_offset=request.applied_offset,
            vector=tuple(map(float, vector)),
            vector_release=self.profile_release,
            created_at=NOW,
        )


@asynccontextmanager
async def wired(settings: Settings) -> AsyncIterator[Wire]:
    """Topics, and a wire to them."""
    await ensure_topics(settings)
    wire = Wire(settings)
    wire.producer = producer(settings)
    source = consumer(settings, ("recommendations", "profile-requests", "releases"), None)
    await wire.producer.start()
    await source.start()
    reading = asyncio.create_task(wire.read(source))
    try:
        yield wire
    finally:
        reading.cancel()
        outcome = await asyncio.gather(reading, return_exceptions=True)
        await wire.producer.stop()
        await source.stop()
        assert isinstance(outcome[0], asyncio.CancelledError), outcome


@asynccontextmanager
async def indexing(
    settings: Settings, load: Callable[[Path], Any] = load_salted
) -> AsyncIterator[asyncio.Task[None]]:
    """An indexer on real LanceDB; yields the task that it runs in."""
    writer = LanceIndex(settings.lancedb_uri, writer=True)
    metrics = IndexerMetrics(CollectorRegistry())
    store = FolderReleaseStore(settings.releases_dir)
    role = Indexer(settings, writer, SaltedEmbedder(""), store, metrics, load)
    async with _running(role.run) as task:
        yield task
    writer.close()


@asynccontextmanager
async def tracking(settings: Settings) -> AsyncIterator[TrackerRole]:
    """A tracker that reads the same LanceDB."""
    role = TrackerRole(
        settings,
        worker=0,
        index=LanceIndex(settings.lancedb_uri),
        metrics=TrackerMetrics(CollectorRegistry()),
    )
    async with _running(role.run):
        yield role


@asynccontextmanager
async def _running(
    run: Callable[[asyncio.Event], Awaitable[None]],
) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.ensure_future(run(stop))
    try:
        yield task
    finally:
        stop.set()
        if not task.cancelled():
            await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        task.result()


def profile_cosines(made: Recommendation, settings: Settings) -> np.ndarray:
    """Of each item of a list, the cosine to the profile that its score parts claim."""
    parts = [item.parts.get("profile", 0.0) for item in made.items]
    return np.array(parts) / settings.ranking.profile
