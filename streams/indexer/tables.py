"""Writes batches of changes into one table of the vector index; blocking, called in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import numpy as np

from models.errors import VectorIndexError
from models.ports import TextEmbedder, VectorIndex, VectorRow
from models.release.canary import check_embedder
from models.settings import IndexSettings
from streams.indexer.changes import Change, plan, row_of
from streams.metrics import IndexerMetrics


@contextmanager
def _of_the_index(table: str) -> Iterator[None]:
    """Failures of the disk below are no record's: the library's own errors are bare."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise VectorIndexError(f"table {table} cannot be written: {error}") from error


class IndexedTable:
    """One table, its embedder, and when it is to be optimized next."""

    def __init__(
        self,
        name: str,
        index: VectorIndex,
        embedder: TextEmbedder,
        settings: IndexSettings,
        metrics: IndexerMetrics,
        alike: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`alike`: names of tables with vectors of the same embedder, which may be copied."""
        self.name = name
        self._alike = alike
        self._topic = name.partition("@")[0]
        self._index = index
        self._embedder = embedder
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._writes = 0  # since the last optimization
        self._old_versions = True  # there may be some whose time to go has not come
        self._written_at = clock()
        self._optimized_at = clock()
        self._there = False  # once it was seen
        self._writing = threading.Lock()
        self._ended = False

    def exists(self) -> bool:
        """Whether anything was ever written to it."""
        self._there = self._index.version(self.name) > 0
        return self._there

    def drop(self) -> None:
        """Remove the table."""
        self._index.drop(self.name)
        self._there = False

    def end(self) -> None:
        """Write no more: after this a write that still embeds in its thread changes nothing."""
        with self._writing:
            self._ended = True

    def verify(self) -> None:
        """Raises VectorIndexError if it is damaged, or gone."""
        self._index.verify(self.name)
        self._check_there()

    def _check_there(self) -> None:
        """A write would make it anew, silently, with what is written from now on."""
        if self._there and self._index.version(self.name) == 0:
            raise VectorIndexError(
                f"table {self.name!r} of the vector index is gone, its folder was deleted; the "
                "indexer makes it anew from its topic when it is started again"
            )

    def write(self, changes: Sequence[Change]) -> None:
        """Make the changes durable and visible; what is there already is not written again."""
        self._check_there()
        known = self._index.get(self.name, [change.id for change in changes])
        planned = plan([self._sound(change) for change in changes], known)
        copied = self._copied(planned.to_embed)
        fresh = [change for change in planned.to_embed if change.id not in copied]
        rows = [*planned.rows, *copied.values(), *self._embedded(fresh)]
        started = time.perf_counter()
        with self._writing, _of_the_index(self.name):
            if self._ended:  # while it embedded: the table may have been dropped
                return
            if rows:
                self._index.upsert(self.name, rows)
            if planned.to_remove:
                self._index.remove(self.name, planned.to_remove)
        if rows or planned.to_remove:
            self._writes += 1
            self._old_versions, self._written_at = True, self._clock()
            self._metrics.write_latency.labels(self._topic).observe(time.perf_counter() - started)
        self._metrics.rows.labels(self._topic, "upserted").inc(len(rows))
        self._metrics.rows.labels(self._topic, "removed").inc(len(planned.to_remove))
        self._there = self._there or bool(rows)
        self._metrics.table_version.labels(self.name).set(self._index.version(self.name))

    def _sound(self, change: Change) -> Change:
        """Without the vector that it came with if that is none of this embedder's."""
        vector = change.vector
        sound = vector is None or (
            len(vector) == self._embedder.dimension and bool(np.isfinite(vector).all())
        )
        return change if sound else replace(change, vector=None)

    def _copied(self, changes: Sequence[Change]) -> dict[str, VectorRow]:
        """Rows, by id, whose text another table has a vector for."""
        if not changes:
            return {}
        tables = (self._index.get(name, [one.id for one in changes]) for name in self._alike())
        vectors = {
            (row.id, row.text): row.vector
            for row in chain.from_iterable(found.values() for found in tables)
        }
        return {
            change.id: row_of(change, vectors[change.id, change.text or ""])
            for change in changes
            if (change.id, change.text) in vectors
        }

    def _embedded(self, changes: Sequence[Change]) -> list[VectorRow]:
        if not changes:
            return []
        started = time.perf_counter()
        vectors = self._embedder.embed([change.text or "" for change in changes])
        self._metrics.embedding_latency.observe(time.perf_counter() - started)
        return [row_of(change, vector) for change, vector in zip(changes, vectors, strict=True)]

    def check_embedder(self) -> None:
        """Raise EmbedderError if not even a plain text is embedded: then no text is to blame."""
        check_embedder(self._embedder, f"table {self.name}")

    def due(self) -> bool:
        """Whether to optimize: after so many writes, or when versions left by a write may go.

        Also without further writes, and after a restart: what was removed leaves the disk.
        """
        waited = self._clock() - self._optimized_at
        aged = self._old_versions and waited >= self._settings.keep_versions_s
        return aged or self._writes >= self._settings.optimize_every

    def optimize(self) -> None:
        """Merge fragments, drop old versions and tombstones."""
        started = time.perf_counter()
        self._index.optimize(self.name)
        self._metrics.optimize_latency.labels(self._topic).observe(time.perf_counter() - started)
        self._writes = 0
        self._optimized_at = self._clock()
        if self._optimized_at - self._written_at > self._settings.keep_versions_s:
            self._old_versions = False
