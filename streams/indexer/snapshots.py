"""The co-occurrence snapshot: counted from the event log on a timer, swapped in whole."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from models.errors import PalateError, SnapshotDamaged
from models.ranking.cooccurrence import (
    Cooccurrence,
    Fingerprint,
    fingerprint,
    load_current,
    save_snapshot,
)
from models.ranking.cooccurrence_build import build
from models.settings import Settings
from streams.indexer.evidence import Until, logged_until, read_evidence
from streams.metrics import IndexerMetrics

log = logging.getLogger(__name__)

REST: Final = 5.0  # × the time that counting took: it uses at most a sixth of one core


def build_snapshot(settings: Settings) -> Cooccurrence:
    """Count the whole log and make the result the current snapshot; blocking."""
    index, folder = settings.index, settings.cooccurrence_dir
    folder.mkdir(parents=True, exist_ok=True)
    snapshot = build(
        read_evidence(settings.log_dir, settings.windows, folder, index.cooccurrence_memory_mb),
        neighbours=index.cooccurrence_neighbours,
        half_life_days=index.pair_half_life_days,
        popularity_half_life_days=index.popularity_half_life_days,
        support=index.pair_support,
        scratch=folder,
    )
    save_snapshot(snapshot, folder)
    return snapshot


class Snapshots:
    """Makes a new snapshot whenever the log has grown, at most once per interval."""

    def __init__(self, settings: Settings, metrics: IndexerMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._counted: Until | None = None
        self._sound: Fingerprint | None = None  # of the snapshot that was last found whole

    async def keep_fresh(self) -> None:
        """For ever; a log that cannot be read now is tried again."""
        while True:
            started = time.monotonic()
            try:
                await asyncio.to_thread(self.refresh)
            except (PalateError, OSError) as error:
                log.warning("no new co-occurrence snapshot, the last one stays: %s", error)
            took = time.monotonic() - started
            await asyncio.sleep(max(self._settings.index.cooccurrence_every_s, REST * took))

    def refresh(self) -> None:
        """Count if anything was logged since the last count, or the snapshot is not whole."""
        until = logged_until(self._settings.log_dir)
        if self._is_whole() and until == self._counted:
            return
        started = time.monotonic()
        snapshot = build_snapshot(self._settings)
        self._counted = until
        self._sound = fingerprint(self._settings.cooccurrence_dir)
        self._metrics.cooccurrence_latency.observe(time.monotonic() - started)
        self._metrics.cooccurrence_items.set(len(snapshot.ids))
        log.info("co-occurrence %s of %d items", snapshot.id, len(snapshot.ids))

    def _is_whole(self) -> bool:
        """Whether there is a snapshot that can be read; read only if it is another file."""
        folder = self._settings.cooccurrence_dir
        found = fingerprint(folder)
        if found is None or found == self._sound:
            return found is not None
        try:
            load_current(folder)
        except SnapshotDamaged as damage:
            self._metrics.snapshots_damaged.inc()
            log.warning("%s", damage)
            return False
        self._sound = found
        return True
