"""Derived views that cannot be read are said to be so, until they can."""

from __future__ import annotations

import asyncio

import numpy as np
from prometheus_client import CollectorRegistry

from models.errors import VectorIndexError
from models.fakes import MemoryIndex
from models.ports import VectorRow
from models.schemas import ReleaseAnnouncement
from streams.metrics import TrackerMetrics
from streams.tracker.derived import Derived
from tests.conftest import MakeSettings
from tests.streams.clients import until


class Damaged(MemoryIndex):
    """One whose tables cannot be read while `damaged` is set."""

    damaged = True

    def newer_than(self, table: str, sequence: int) -> list[VectorRow]:
        if self.damaged:
            raise VectorIndexError(f"table {table!r} is damaged")
        return super().newer_than(table, sequence)


def test_what_is_damaged_is_named_and_taken_up_when_it_is_whole(
    make_settings: MakeSettings,
) -> None:
    index = Damaged()
    index.upsert("items@base-0", [VectorRow("tea", np.ones(4, np.float32), "tea", 0, {})])
    settings = make_settings(ranking={"refresh_s": 0.01})

    async def run() -> None:
        derived = Derived(settings, index, TrackerMetrics(CollectorRegistry()))
        derived.release.take(ReleaseAnnouncement(release="base-0", status="serving", at=10**12))
        refreshing = asyncio.create_task(derived.keep_fresh())
        await until(lambda: derived.problem == "table 'items@base-0' is damaged")
        assert derived.shelf is None
        index.damaged = False
        await until(lambda: derived.shelf is not None)
        await until(lambda: derived.problem is None)
        refreshing.cancel()
        await asyncio.gather(refreshing, return_exceptions=True)

    asyncio.run(run())
