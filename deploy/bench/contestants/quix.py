"""Quix Streams: the same count with its state (RocksDB and changelog), a message per event."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import orjson
from quixstreams import Application, State

from deploy.bench.bench_broker import COUNTS
from deploy.bench.progress import WorkerProgress
from models.settings import Settings, load_settings


def create_app(settings: Settings, progress: WorkerProgress) -> Application:
    """The app; a record counts when its message was handed to the producer."""
    worker = os.environ.get("PALATE_WORKER", "0")
    app = Application(
        broker_address=settings.kafka.bootstrap,
        consumer_group=f"{settings.kafka.prefix}quix",
        auto_offset_reset="earliest",
        state_dir=settings.data_dir / f"quix-{worker}",
        loglevel="WARNING",
        on_message_processed=lambda _topic, _partition, _offset: progress.add(1),
    )
    events = app.topic(settings.topic("interactions"), value_deserializer="bytes")
    counts = app.topic(settings.topic(COUNTS), value_serializer="bytes")
    app.dataframe(events).apply(_count, stateful=True).to_topic(counts)
    return app


def _count(value: Any, state: State) -> bytes:
    orjson.loads(value)
    total = state.get("count", 0) + 1
    state.set("count", total)
    return b"%d" % total


def main() -> None:
    """The argument is the progress file."""
    create_app(load_settings(), WorkerProgress(Path(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
