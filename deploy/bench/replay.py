"""Replay of the event log into sessions: speed beside the live tracker's, and memory."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from deploy.bench.bench_broker import CHECKOUT, Ground, environment
from deploy.bench.catalogue import item_ids
from deploy.bench.load import FIRST_TIME, SEED, TYPES
from deploy.bench.race import Contestant, race
from deploy.bench.rows import Figure, at_least, below, median_row
from models.errors import StackError
from models.schemas import Item
from models.settings import load_settings
from streams.event_log import SegmentLog
from streams.event_log.columns import OK, SCHEMAS

EVENTS: Final = 10_000_000
FEW: Final = 200_000
PARTITIONS: Final = 4
SEGMENT_ROWS: Final = 250_000
ITEMS: Final = 20_000
EVENTS_PER_USER: Final = 100
SPAN_MS: Final = 2 * 365 * 86_400_000  # of the whole log: most events open a session
MOST_GIB: Final = 6.0
TIMES_LIVE: Final = 10.0
LIVE: Final = Contestant("tracker, catching up", "deploy.bench.contestants.tracker")
LIVE_EVENTS: Final = 60_000


def replay(ground: Ground) -> list[Figure]:
    """Interactions of a synthetic log replayed into point-in-time sessions, on one core."""
    count = FEW if ground.quick else EVENTS
    large, small = ground.folder / "replay-large", ground.folder / "replay-small"
    write_log(large, count)
    write_log(small, min(count, FEW))
    runs, live = [], []
    for _ in range(ground.runs):
        runs.append(_run(ground, "sessions", large))
        live.append(_live(ground))
    folded = [_run(ground, "histories", small) for _ in range(ground.runs)]
    shutil.rmtree(large)
    speeds = [run["events"] / run["processor_s"] for run in runs]
    note = f"{count:,} events of {count // EVENTS_PER_USER:,} users, {ITEMS:,} items; reading, "
    note += "borders, histories, sessions and training events; by processor time"
    return [
        median_row("replay into sessions", speeds, "events/s", note),
        median_row("tracker, catching up", live, "events/s", "one worker; by processor time"),
        at_least(
            "replay / live tracker",
            [ours / theirs for ours, theirs in zip(speeds, live, strict=True)],
            TIMES_LIVE,
            "×",
        ),
        below(
            "peak memory of replay",
            [run["peak_mib"] / 1024 for run in runs],
            MOST_GIB,
            "GiB",
            f"{runs[0]['start_mib']:.0f} MiB of it before the log is opened",
        ),
        median_row(
            "the same through the codec, event by event",
            [run["events"] / run["processor_s"] for run in folded],
            "events/s",
            "as a rebuild of state does: every value decoded, histories folded by advance",
        ),
    ]


def _live(ground: Ground) -> float:
    """Events that one tracker applies in a second of processor time."""
    count = LIVE_EVENTS // 10 if ground.quick else LIVE_EVENTS
    return 1e6 / asyncio.run(race(ground, LIVE, count, item_ids())).cpu_us


def _run(ground: Ground, what: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "deploy.bench.contestants.replaying", what, str(folder)]
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, **environment(load_settings(data_dir=ground.folder))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StackError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write_log(folder: Path, count: int) -> None:
    """`count` interactions over two years, each user in one partition; and the catalogue."""
    log, chance = SegmentLog(folder), np.random.default_rng(SEED)
    per_partition = count // PARTITIONS
    for partition in range(PARTITIONS):
        for first in range(0, per_partition, SEGMENT_ROWS):
            rows = min(SEGMENT_ROWS, per_partition - first)
            times = FIRST_TIME + np.arange(first, first + rows) * (SPAN_MS // per_partition)
            table = _interactions(chance, partition, first, times, count // EVENTS_PER_USER)
            log.append_from("interactions", partition, first, table)
    log.append("items", 0, [_item(number) for number in range(ITEMS)])


def _interactions(
    chance: np.random.Generator, partition: int, first: int, times: np.ndarray, users: int
) -> pa.Table:
    """Users and items by a falling density, so that some have much and many little."""
    rows = len(times)
    people = (users // PARTITIONS * chance.random(rows) ** 1.5).astype(int)
    items = (ITEMS * chance.random(rows) ** 2).astype(int)
    kinds = chance.choice(list(TYPES), size=rows, p=np.array(list(TYPES.values())) / 100)
    offsets = np.arange(first, first + rows)
    names = [f"user-{partition}-{person:06d}" for person in people]
    things = [f"item-{item:05d}" for item in items]
    events = [f"{partition}-{offset:012d}" for offset in offsets]
    ratings = np.where(kinds == "rating", 4.0, np.nan)
    values = [
        b'{"event_id":"%b","user_id":"%b","item_id":"%b","type":"%b","timestamp":%d,"rating":4}'
        % (event.encode(), name.encode(), thing.encode(), str(kind).encode(), time)
        for event, name, thing, kind, time in zip(events, names, things, kinds, times, strict=True)
    ]
    return _table(
        "interactions",
        rows,
        {
            "offset": offsets,
            "partition": np.full(rows, partition, np.int32),
            "kafka_time": times,
            "key": [name.encode() for name in names],
            "value": values,
            "status": [OK] * rows,
            "event_id": events,
            "user_id": names,
            "item_id": things,
            "type": kinds.tolist(),
            "timestamp": times,
            "rating": pa.array(ratings, from_pandas=True),
        },
    )


def _table(topic: str, rows: int, columns: dict[str, Any]) -> pa.Table:
    schema = SCHEMAS[topic]
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def _item(number: int) -> dict[str, Any]:
    item = Item(item_id=f"item-{number:05d}", title=f"thing number {number}")
    value = item.to_json()
    fields = orjson.loads(value)
    return {
        **{name: fields[name] for name in ("item_id", "title")},
        "offset": number,
        "partition": 0,
        "kafka_time": FIRST_TIME,
        "key": item.item_id.encode(),
        "value": value,
        "status": OK,
    }
