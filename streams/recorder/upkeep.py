"""Small segments become larger ones, damaged ones are set apart, what is lost is read again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from models.errors import ManifestLost, SegmentDamaged
from models.settings import Settings
from streams.event_log import SegmentLog, compact
from streams.event_log.manifest import Manifest
from streams.event_log.repair import apart, set_apart
from streams.metrics import RecorderMetrics
from streams.recorder.backfill import Backfill

log = logging.getLogger(__name__)

LogPlace = tuple[str, int]  # topic without the prefix, partition


class Upkeep:
    """Goes over the partitions that are recorded, every `log.compact_every_s`, beside recording."""

    def __init__(self, settings: Settings, segments: SegmentLog, metrics: RecorderMetrics) -> None:
        self._settings, self._log, self._metrics = settings, segments, metrics
        self.backfill = Backfill(settings, segments, metrics)
        self._running: asyncio.Task[None] | None = None
        self._begun_at = time.monotonic()

    def note_opened(self, place: LogPlace, manifest: Manifest) -> None:
        """A partition is recorded from now on; what it has lost is read again soon."""
        self._observe_damage(place, manifest)
        if not all(hole.expired for hole in manifest.missing):
            self._begun_at = float("-inf")  # the sooner, the less of it has expired

    async def when_due(self, places: Sequence[LogPlace]) -> None:
        """Begin if it is time. Raises what the last time has failed with."""
        if self._running is not None and self._running.done():
            finished, self._running = self._running, None
            await finished
        waited = time.monotonic() - self._begun_at
        if self._running is None and waited >= self._settings.log.compact_every_s:
            self._begun_at = time.monotonic()
            self._running = asyncio.create_task(self._keep_up(places))

    async def stop(self) -> None:
        """A merge under way ends by itself; reading again may last, and is cancelled."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self.backfill.stop()

    async def _keep_up(self, places: Sequence[LogPlace]) -> None:
        for place in places:
            await asyncio.to_thread(self._compact, *place)
            await self.backfill.fill(*place)
            self._observe_damage(place, self._log.manifest(*place))

    def _compact(self, topic: str, partition: int) -> None:
        below = self._settings.log.compact_below_rows
        try:
            merged = compact(self._log, topic, partition, below)
        except SegmentDamaged as error:
            lost = set_apart(self._log.partition_folder(topic, partition), error.file)
            log.error("%s; %s", error, lost or "it was read at the second try")
            return
        except ManifestLost as error:
            log.error("%s; it is made again at the next append", error)
            return
        self._metrics.compactions.labels(topic).inc(merged)

    def _observe_damage(self, place: LogPlace, manifest: Manifest) -> None:
        topic, partition = place[0], str(place[1])
        rows = sum(hole.rows for hole in manifest.missing)
        self._metrics.missing_rows.labels(topic, partition).set(rows)
        files = apart(self._log.partition_folder(*place))
        self._metrics.set_apart.labels(topic, partition).set(len(files))
