"""`python -m streams.recorder`: compose the role and run it."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from models.settings import load_settings
from streams.metrics import RecorderMetrics
from streams.recorder.role import Recorder
from streams.service import HealthServer, run_role
from streams.topics import ensure_topics


def main() -> None:
    """Record until SIGTERM."""
    settings = load_settings()
    registry = CollectorRegistry()
    recorder = Recorder(settings, RecorderMetrics(registry))
    health = HealthServer(
        settings.metrics.host, settings.metrics.recorder_port, registry, recorder.not_ready
    )

    async def record(stop: asyncio.Event) -> None:
        await health.start()
        try:
            await ensure_topics(settings)
            await recorder.run(stop)
        finally:
            await health.stop()

    run_role("recorder", settings, record)


if __name__ == "__main__":
    main()
