"""`python -m streams.recorder`: compose the role and run it."""

from __future__ import annotations

import asyncio
import contextlib

from prometheus_client import CollectorRegistry

from models.settings import load_settings
from streams.metrics import RecorderMetrics
from streams.recorder.parity_watch import watch_parity
from streams.recorder.role import Recorder
from streams.service import HealthServer, run_role
from streams.topics import ensure_topics


def main() -> None:
    """Record until SIGTERM."""
    settings = load_settings()
    registry = CollectorRegistry()
    metrics = RecorderMetrics(registry)
    recorder = Recorder(settings, metrics)
    health = HealthServer(
        settings.metrics.host, settings.metrics.recorder_port, registry, recorder.not_ready
    )

    async def record(stop: asyncio.Event) -> None:
        await health.start()
        parity = asyncio.create_task(watch_parity(settings, metrics))
        try:
            await ensure_topics(settings)
            await recorder.run(stop)
        finally:
            parity.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # we have just cancelled it
                await parity
            await health.stop()

    run_role("recorder", settings, record)


if __name__ == "__main__":
    main()
