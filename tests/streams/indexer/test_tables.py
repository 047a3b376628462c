"""When a table is optimized; also long after its last write, so that what is removed goes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.fakes import HashEmbedder, MemoryIndex
from models.settings import IndexSettings
from streams.indexer.changes import Change
from streams.indexer.tables import IndexedTable
from streams.metrics import IndexerMetrics
from tests.patience import HANG_S

KEEP_S = 600.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> IndexedTable:
    settings = IndexSettings(keep_versions_s=KEEP_S, optimize_every=2)
    metrics = IndexerMetrics(CollectorRegistry())
    return IndexedTable("profiles@r", MemoryIndex(), HashEmbedder(), settings, metrics, clock=clock)


def optimized_at(table: IndexedTable, clock: Clock, until: float) -> list[float]:
    found = []
    while clock.now < until:
        clock.now += 100.0
        if table.due():
            table.optimize()
            found.append(clock.now)
    return found


def test_versions_that_an_optimization_left_go_later_without_further_writes(
    table: IndexedTable, clock: Clock
) -> None:
    table.write([Change("ann", "likes tea")])
    table.write([Change("ann", None)])
    assert table.due()  # after two writes, but their versions are too young to go
    table.optimize()
    assert optimized_at(table, clock, until=5_000) == [KEEP_S, 2 * KEEP_S]


def test_what_was_left_before_a_restart_goes_too_and_then_nothing_is_done(
    table: IndexedTable, clock: Clock
) -> None:
    assert optimized_at(table, clock, until=5_000) == [KEEP_S, 2 * KEEP_S]


class SlowEmbedder(HashEmbedder):
    """Says when it has begun, and waits to be let on."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.may_go_on = threading.Event(), threading.Event()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.began.set()
        assert self.may_go_on.wait(HANG_S)
        return super().embed(texts)


def test_a_write_that_still_embeds_does_not_bring_a_dropped_table_back() -> None:
    index, embedder = MemoryIndex(), SlowEmbedder()
    metrics = IndexerMetrics(CollectorRegistry())
    table = IndexedTable("items@r", index, embedder, IndexSettings(), metrics)
    writing = threading.Thread(target=table.write, args=([Change("cake", "Red cake")],))
    writing.start()
    assert embedder.began.wait(HANG_S)
    table.end()
    index.drop("items@r")
    embedder.may_go_on.set()
    writing.join()
    assert index.version("items@r") == 0
    assert index.ids("items@r") == set()
