"""An indexer whose keepers keep nothing, without Kafka: which releases it keeps, what it says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from prometheus_client import CollectorRegistry

from models.fakes import HashEmbedder, MemoryIndex, MemoryReleaseStore
from models.ports import ReleaseStore
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.indexer import role
from streams.metrics import IndexerMetrics

AT = 1_700_000_000_000


def step(release: str, status: str, by: str = "x", **more: object) -> ReleaseAnnouncement:
    values = {"release": release, "status": status, "at": AT, "by": by}
    return ReleaseAnnouncement.model_validate(values | more)


class IdleSync:
    """A keeper whose tables are whole at once."""

    problem = None
    ended = False

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def run(self, stop: asyncio.Event, **_: Any) -> None:
        await stop.wait()

    def end(self) -> None:
        self.ended = True

    def has_caught_up(self, _topic: str) -> bool:
        return True

    def standing_still(self, _limit_s: float) -> str | None:
        return None


class Arranging(role.Indexer):
    """`take` gives it a step, `turn` lets it arrange once; what it announces is in `said`."""

    def __init__(self, settings: Settings, store: ReleaseStore | None = None) -> None:
        self.store = store or MemoryReleaseStore()
        self.index = MemoryIndex()
        self.metrics = IndexerMetrics(CollectorRegistry())
        self.said: list[tuple[str, str]] = []
        embedder = HashEmbedder(2, model=settings.embedder.model)
        super().__init__(settings, self.index, embedder, self.store, self.metrics, self.load)
        self._shared = SimpleNamespace()  # type: ignore[assignment]

    def load(self, _folder: Any) -> HashEmbedder:
        return HashEmbedder(2)

    def take(self, *steps: ReleaseAnnouncement) -> None:
        for one in steps:
            self._releases.take(one)

    async def turn(self) -> None:
        """One turn of its loop."""
        with patch.object(role, "TableSync", IdleSync):
            await self._settle_ended()
            await self._arrange()
            await self._announce()

    async def close(self) -> None:
        await self._end_all()

    async def _say(self, release_id: str, status: str, **more: str | None) -> None:
        self.said.append((release_id, status))
        self._releases.take(step(release_id, status, "indexer", **more))

    @property
    def kept(self) -> set[str]:
        return set(self._kept)
