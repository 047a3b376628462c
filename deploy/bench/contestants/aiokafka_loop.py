"""The bare client: parse, count in a dictionary (lost at a crash), a message per user and batch."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from pathlib import Path

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy.bench.bench_broker import COUNTS
from deploy.bench.progress import WorkerProgress
from models.settings import Settings, load_settings


async def serve(settings: Settings, progress: WorkerProgress) -> None:
    """Count until killed."""
    topic, kafka = settings.topic("interactions"), settings.kafka
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka.bootstrap,
        group_id=f"{kafka.prefix}bare",
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", linger_ms=2)
    await consumer.start()
    await producer.start()
    totals: Counter[bytes] = Counter()
    while True:
        fetched = await consumer.getmany(timeout_ms=200, max_records=2_000)
        records = [record for found in fetched.values() for record in found]
        users = [orjson.loads(record.value)["user_id"].encode() for record in records]
        totals.update(users)
        for user in set(users):
            await producer.send(settings.topic(COUNTS), b"%d" % totals[user], user)
        if records:
            progress.add(len(records))


def main() -> None:
    """The argument is the progress file."""
    logging.disable(logging.INFO)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(load_settings(), WorkerProgress(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
