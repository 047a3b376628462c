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
from streams.tracker.app import DeliveredRecord
from streams.tracker.role import TrackerRole


class CountedTracker(TrackerRole):
    """Counts the interactions it is done with."""

    progress: WorkerProgress

    async def _on_interactions(self, rows: list[DeliveredRecord]) -> None:
        await super()._on_interactions(rows)
        position = sum(interactions for interactions, _ in self.next_offsets.values())
        self.progress.add(len(rows), position)


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
