"""`python -m streams.tracker`: compose the role from its adapters and run it."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry

from models.ranking.lance_index import LanceIndex
from models.settings import load_settings
from streams.metrics import TrackerMetrics
from streams.service import run_role
from streams.tracker.role import TrackerRole


def main() -> None:
    """Run one tracker worker until SIGTERM."""
    settings = load_settings()
    role = TrackerRole(
        settings,
        worker=int(os.environ.get("PALATE_WORKER", "0")),
        index=LanceIndex(settings.lancedb_uri),
        metrics=TrackerMetrics(CollectorRegistry()),
    )
    run_role("tracker", settings, role.run)


if __name__ == "__main__":
    main()
