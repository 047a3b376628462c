"""`python -m streams.recorder`: compose the role and run it."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from models.settings import load_settings
from streams.health import HealthServer
from streams.kafka.topics import ensure_topics
from streams.metrics import RecorderMetrics
from streams.recorder.parity_watch import watch_parity
from streams.recorder.role import Recorder
from streams.service import cancelled, run_role, until_stopped


def main() -> None:
    """Record until SIGTERM."""
    settings = load_settings()
    metrics = RecorderMetrics(CollectorRegistry())
    recorder = Recorder(settings, metrics)
    metrics_at = settings.metrics
    health = HealthServer(metrics_at.host, metrics_at.recorder_port, metrics, recorder.not_ready)

    async def record(stop: asyncio.Event) -> None:
        await health.start(stop)
        parity = asyncio.create_task(watch_parity(settings, metrics))
        try:
            await until_stopped(stop, ensure_topics(settings))
            await recorder.run(stop)
        finally:
            await cancelled([parity])
            await health.stop()

    run_role("recorder", settings, record)


if __name__ == "__main__":
    main()
