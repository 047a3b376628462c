"""Memory of each role of the whole stack, with the sample's catalogue and some traffic."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import psutil

from deploy.bench.bench_broker import Ground, exported
from deploy.bench.catalogue import item_ids, sample_items
from deploy.bench.load import Burst, events
from deploy.bench.rows import Figure
from deploy.observe import scrape, total
from deploy.stack import Stack
from models.errors import StackError
from models.settings import Settings
from streams.kafka.clients import producer

EVENTS: Final = 20_000
USERS: Final = 1_000
WITHIN_S: Final = 900.0


def memory(ground: Ground) -> list[Figure]:
    """Resident memory once the catalogue is indexed, events are applied, profiles are written."""
    items, count, profiles = (64, 500, 1) if ground.quick else (len(sample_items()), EVENTS, 8)
    settings = ground.settings()
    with exported(settings):
        stack = Stack(settings)
        try:
            stack.start(lambda _part, _what: None)
            asyncio.run(_traffic(settings, items, count))
            _wait(stack, items, count, profiles)
            note = f"{items:,} items, {count:,} events of {USERS:,} users, {profiles} profiles"
            return _rows(stack, note)
        finally:
            stack.stop(lambda _part, _what: None)


async def _traffic(settings: Settings, items: int, count: int) -> None:
    async with producer(settings) as sender, Burst(settings) as burst:
        for item in sample_items()[:items]:
            await sender.send(settings.topic("items"), item.to_json(), item.item_id.encode())
        await sender.flush()
        await burst.send(burst.pack(events(count, USERS, item_ids())))


def _wait(stack: Stack, items: int, count: int, profiles: int) -> None:
    """Until the roles' own metrics say that the work is done."""
    urls = {role.name: role.url for role in stack.roles}
    wanted = {
        ("indexer", "palate_index_rows_total"): items,
        ("tracker-0", "palate_events_total"): count,
        ("recorder", "palate_recorded_rows_total"): count,
        ("profiler", "palate_profiles_total"): profiles,
    }
    deadline = time.monotonic() + WITHIN_S
    while wanted:
        for role, metric in list(wanted):
            if total(scrape(urls[role]), metric) >= wanted[role, metric]:
                del wanted[role, metric]
        if time.monotonic() > deadline:
            raise StackError(f"not reached in {WITHIN_S:.0f} s: {wanted}")
        time.sleep(0.5)


def _rows(stack: Stack, note: str) -> list[Figure]:
    found = []
    for role in stack.roles:
        process = stack.background(role).process()
        if process is None:
            raise StackError(f"{role.name} has ended; see {stack.logs}")
        found.append(Figure(f"memory, {role.name}", _mib(process), "MiB", note=note))
    return found


def _mib(process: psutil.Process) -> float:
    """Resident memory of a process and its children."""
    family = [process, *process.children(recursive=True)]
    return round(sum(one.memory_info().rss for one in family) / 2**20, 1)
