"""`python -m streams.recorder`: compose the role and run it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from models.settings import load_settings
from streams.metrics import RecorderMetrics
from streams.recorder.role import Recorder
from streams.service import run_role


def main() -> None:
    """Record until SIGTERM."""
    settings = load_settings()
    run_role("recorder", settings, Recorder(settings, RecorderMetrics(CollectorRegistry())).run)


if __name__ == "__main__":
    main()
