"""The tracker role as `python -m streams.tracker` composes it, telling how far it is.

A record counts once its batch is applied, in RocksDB, and its changelog is acknowledged.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from deploy.bench.progress import WorkerProgress
from models.settings import load_settings
from streams.metrics import TrackerMetrics
from streams.service import run_role
from streams.tracker.delivery import BatchWork
from streams.tracker.role import TrackerRole
from streams.tracker.runtime import DeliveredRecord
from streams.tracker.working_set import INTERACTIONS


class CountedTracker(TrackerRole):
    """Counts the interactions it is done with."""

    progress: WorkerProgress

    def batch_work(self) -> dict[str, BatchWork]:
        """That of the tracker, counted."""
        return super().batch_work() | {"interactions": self._counted}

    async def _counted(self, rows: list[DeliveredRecord]) -> None:
        await self.intake.on_interactions(rows)
        self.progress.add(len(rows), sum(self.working_set.expected(INTERACTIONS).values()))


def main() -> None:
    """Run one worker until SIGTERM; the argument is the progress file."""
    from models.ranking.lance_index import LanceIndex  # after streams.tracker, which prepares numpy

    settings = load_settings()
    role = CountedTracker(
        settings,
        worker=int(os.environ.get("PALATE_WORKER", "0")),
        index=LanceIndex(settings.lancedb_uri),
        metrics=TrackerMetrics(CollectorRegistry()),
    )
    role.progress = WorkerProgress(Path(sys.argv[1]))
    run_role("tracker", settings, role.run)


if __name__ == "__main__":
    main()
