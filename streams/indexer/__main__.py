"""`python -m streams.indexer`: compose the role from its adapters and run it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from pathlib import Path

from prometheus_client import CollectorRegistry

from models.engines.model_files import embedder_model
from models.engines.threads import wait_without_spinning
from models.ports import TextEmbedder
from models.ranking.lance_index import LanceIndex
from models.release.store import FolderReleaseStore
from models.settings import Settings, load_settings
from streams.indexer.embedders import Load
from streams.indexer.role import Indexer
from streams.metrics import IndexerMetrics
from streams.service import run_role, until_stopped

log = logging.getLogger("streams.indexer")  # not __main__


def main() -> None:
    """Index until SIGTERM."""
    wait_without_spinning()
    settings = load_settings()
    run_role("indexer", settings, lambda stop: index(settings, stop))


async def index(settings: Settings, stop: asyncio.Event) -> None:
    """Take the writer's lock, then index."""
    with closing(writer(settings)) as vectors:
        embedder = await until_stopped(stop, asyncio.to_thread(load_embedder, settings))
        if embedder is None:
            return
        releases = FolderReleaseStore(settings.releases_dir)
        metrics = IndexerMetrics(CollectorRegistry())
        role = Indexer(settings, vectors, embedder, releases, metrics, folder_loader(settings))
        await role.run(stop)


def load_embedder(settings: Settings) -> TextEmbedder:
    """The configured embedder; torch is imported only behind the lock, 10 s on a busy machine."""
    log.info("loading the embedder")
    from models.engines.embedder import SentenceEmbedder

    return SentenceEmbedder(embedder_model(settings), settings.embedder)


def folder_loader(settings: Settings) -> Load:
    """Loads the embedder of a release that brings one along."""

    def load(folder: Path) -> TextEmbedder:
        from models.engines.embedder import SentenceEmbedder

        return SentenceEmbedder(folder, settings.embedder)

    return load


def writer(settings: Settings) -> LanceIndex:
    """The vector index, opened for writing; on object storage the lock lies in data_dir."""
    remote = "://" in settings.lancedb_uri
    return LanceIndex(
        settings.lancedb_uri,
        writer=True,
        lock=settings.data_dir / "lancedb.lock" if remote else None,
        keep_versions_s=settings.index.keep_versions_s,
        approximate_above=settings.ranking.exact_up_to,
    )


if __name__ == "__main__":
    main()
