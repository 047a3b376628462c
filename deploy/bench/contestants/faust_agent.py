"""A Faust agent that only counts into a table and sends one message, as fast as Faust allows.

`each`: one table write and one message per event. `batch`: one of each per user and batch.
Both with uvloop, RocksDB, raw bytes parsed by orjson, and no debug records.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any, Final

import faust
import orjson
import uvloop
from faust.streams import _current_event
from faust.types import EventT, StreamT

from deploy.bench.bench_broker import COUNTS
from deploy.bench.progress import WorkerProgress
from models.settings import Settings, load_settings

BATCH: Final = 2_000
WITHIN_S: Final = 0.05


def create_app(settings: Settings) -> faust.App:
    """The app, its RocksDB in data_dir."""
    datadir = settings.data_dir / f"faust-{os.environ.get('PALATE_WORKER', '0')}"
    datadir.mkdir(parents=True, exist_ok=True)
    return faust.App(
        f"{settings.kafka.prefix}faust-counter",
        broker=f"kafka://{settings.kafka.bootstrap}",
        store="rocksdb://",
        datadir=str(datadir),
        topic_partitions=settings.kafka.partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=8_192,
        stream_wait_empty=False,
        web_enabled=False,
        autodiscover=False,
        value_serializer="raw",
        key_serializer="raw",
    )


def declare(app: faust.App, settings: Settings, progress: WorkerProgress, *, batched: bool) -> None:
    """The agent, its table and its topics."""
    options = {"key_type": bytes, "value_type": bytes, "value_serializer": "raw"}
    events = app.topic(settings.topic("interactions"), **options)
    counts = app.topic(settings.topic(COUNTS), **options)
    table = app.Table("totals", default=int, key_type=bytes, partitions=settings.kafka.partitions)

    async def each(stream: StreamT) -> None:
        async for value in stream:
            user = orjson.loads(value)["user_id"].encode()
            total = table[user] = table[user] + 1
            await counts.send(key=user, value=b"%d" % total)
            progress.add(1)

    async def batch(stream: StreamT) -> None:
        async for taken in stream.noack_take(BATCH, within=WITHIN_S):
            added: Counter[bytes] = Counter()
            last: dict[bytes, EventT[Any]] = {}
            for event in taken:
                user = orjson.loads(event.value)["user_id"].encode()
                added[user] += 1
                last[user] = event
            for user, count in added.items():
                _current_event.set(weakref.ref(last[user]))  # names the partition of the write
                total = table[user] = table[user] + count
                await counts.send(key=user, value=b"%d" % total)
            for event in taken:
                event.ack()
            progress.add(len(taken))

    app.agent(events, name="counter")(batch if batched else each)


async def serve(settings: Settings, progress: WorkerProgress, *, batched: bool) -> None:
    """Count until killed."""
    app = create_app(settings)
    declare(app, settings, progress, batched=batched)
    app.finalize()
    await app.start()
    await app.wait_until_stopped()


def main() -> None:
    """Arguments: progress file, `each` or `batch`."""
    logging.basicConfig(level=logging.WARNING)
    logging.disable(logging.INFO)
    progress, kind = WorkerProgress(Path(sys.argv[1])), sys.argv[2]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(load_settings(), progress, batched=kind == "batch"))


if __name__ == "__main__":
    main()
