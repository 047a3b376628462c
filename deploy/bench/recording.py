"""Rows per second of the recorder: from Kafka into segments that are listed in a manifest."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from deploy.bench.bench_broker import Ground, make_topics
from deploy.bench.catalogue import item_ids
from deploy.bench.load import Burst, events
from deploy.bench.rows import Figure, median_row
from models.settings import Settings
from streams.event_log import SegmentLog

WARM_UP: Final = 2_000
USERS: Final = 1_000
LINGER_S: Final = 0.25  # with the default of 2 s, most of the time would be waiting at the end


def recording(ground: Ground) -> list[Figure]:
    """A burst of events, timed until the last is durable in the log."""
    count = 6_000 if ground.quick else 100_000
    runs = [asyncio.run(_record(ground, count)) for _ in range(ground.runs)]
    note = f"{count:,} events in 4 partitions, decoded and judged as the tracker does; "
    note += f"segments of 20,000 rows or {LINGER_S} s"
    return [median_row("recorder", runs, "rows/s", note)]


async def _record(ground: Ground, count: int) -> float:
    settings = ground.settings(log={"seconds": LINGER_S})
    await make_topics(settings)
    async with Burst(settings) as burst:
        with ground.process(settings, "streams.recorder") as recorder:
            await burst.send(burst.pack(events(WARM_UP, USERS, item_ids())))
            await asyncio.to_thread(recorder.wait, lambda: recorded(settings) == WARM_UP)
            packed = burst.pack(events(count, USERS, item_ids(), first=WARM_UP))
            begun = time.monotonic()
            await burst.send(packed)
            await asyncio.to_thread(recorder.wait, lambda: recorded(settings) == WARM_UP + count)
            return count / (time.monotonic() - begun)


def recorded(settings: Settings) -> int:
    """Interactions that the manifests list."""
    log = SegmentLog(settings.log_dir)
    return sum(log.next_offset("interactions", n) for n in range(settings.kafka.partitions))
