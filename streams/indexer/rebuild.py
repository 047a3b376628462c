"""Every derived view again, from the topics and the event log."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from models.ports import ReleaseStore, TextEmbedder, VectorIndex
from models.release.store import items_table, profiles_table
from models.settings import Settings
from streams.indexer.embedders import Load
from streams.indexer.role import Indexer
from streams.indexer.snapshots import build_snapshot
from streams.metrics import IndexerMetrics


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was made."""

    release: str
    items: int
    profiles: int
    cooccurrence: str
    cooccurrence_items: int


async def rebuild_index(
    settings: Settings,
    index: VectorIndex,
    embedder: TextEmbedder,
    releases: ReleaseStore,
    load: Load | None = None,
) -> Rebuilt:
    """Drop the tables of all releases kept, fill them from the topics, count the log again.

    `index` holds the writer's lock, so no indexer runs. Interrupted, it is finished by the next
    indexer: a table that is not there is read from the beginning of its topic.
    """
    metrics = IndexerMetrics(CollectorRegistry())
    indexer = Indexer(settings, index, embedder, releases, metrics, load, from_scratch=True)
    stop = asyncio.Event()
    running = asyncio.create_task(indexer.run(stop, served=False))
    caught_up = asyncio.create_task(indexer.caught_up.wait())
    try:
        await asyncio.wait({running, caught_up}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        caught_up.cancel()
        with suppress(asyncio.CancelledError):  # of waiting; the role itself ends by `stop`
            await caught_up
        await running
    snapshot = await asyncio.to_thread(build_snapshot, settings)
    release = indexer.release_id
    return Rebuilt(
        release=release,
        items=len(index.ids(items_table(release))),
        profiles=len(index.ids(profiles_table(release))),
        cooccurrence=snapshot.id,
        cooccurrence_items=len(snapshot.ids),
    )
