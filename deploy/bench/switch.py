"""A release takes over while events flow: how long lists take meanwhile, and all users to move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy.bench.bench_broker import Ground
from deploy.bench.catalogue import DIMENSION, RELEASE, sample_items
from deploy.bench.latency import PER_SECOND, latencies, percentile
from deploy.bench.live import Live, live_tracker, people
from deploy.bench.rows import Figure, median_row
from models.errors import StackError
from models.ports import VectorRow, Vectors
from models.ranking.lance_index import LanceIndex
from models.release.store import items_table, profiles_table
from models.schemas import Profile, Sections
from models.settings import Settings
from streams.kafka.clients import consumer, producer
from streams.releases import announce

NEXT: Final = "next"
USERS: Final = 5_000
ACTIVE: Final = 1_000  # of these the events come
HISTORY: Final = 5
READY_S: Final = 2.0  # of events before the new release serves; the tracker loads its items
WITHIN_S: Final = 300.0
AT: Final = 1_300_000_000_000


class LastList(NamedTuple):
    """What a user's last list says."""

    release: str
    profile_id: str | None


def switch(ground: Ground) -> list[Figure]:
    """5,000 users with profiles move to another release while 1,000 of them make 200 events/s."""
    users, seconds = (300, 4) if ground.quick else (USERS, 30)
    before, during, moved_s = asyncio.run(_measure(ground, users, int(seconds * PER_SECOND)))
    note = (
        f"{users} users of {HISTORY} and more events, all with profiles; {PER_SECOND:.0f} events/s "
        f"for {seconds} s; catalogue of {len(sample_items())} items"
    )
    return [
        *_rows("before", before),
        *_rows("while a release takes over", during, note),
        median_row(f"`serving` → all {users} users have its list", [moved_s], "s"),
    ]


def _rows(when: str, found_s: Sequence[float], note: str = "") -> list[Figure]:
    return [
        median_row(
            f"event → recommendation, p{percent}, {when}",
            [percentile(found_s, percent)],
            "ms",
            note,
        )
        for percent in (50, 99)
    ]


async def _measure(
    ground: Ground, users: int, count: int
) -> tuple[list[float], list[float], float]:
    everyone = people(users)
    active = everyone[:ACTIVE]
    async with live_tracker(ground) as live, producer(live.settings) as sender:
        _lay_out_next(live.settings, everyone)
        await live.preload(everyone, HISTORY)
        await _send_profiles(sender, live.settings, everyone)
        async with _lists(live.settings) as lists:
            await _until(lambda: sum(one.profile_id is not None for one in lists.values()) == users)
            before = await latencies(live, active, count)
            moving = asyncio.create_task(_switch(live, sender, lists, users))
            during = await latencies(live, active, count)
            return before, during, await moving


def _lay_out_next(settings: Settings, everyone: Sequence[str]) -> None:
    """The tables of the next release, as the indexer would have made them."""
    index = LanceIndex(settings.lancedb_uri, writer=True)
    items = sample_items()
    rows = zip(items, _vectors(len(items), seed=1), strict=True)
    index.upsert(items_table(NEXT), [VectorRow(i.item_id, v, i.title, 0, {}) for i, v in rows])
    profiles = zip(everyone, _vectors(len(everyone), seed=2), strict=True)
    index.upsert(
        profiles_table(NEXT), [VectorRow(u, v, "", 0, {"profile_id": u}) for u, v in profiles]
    )
    index.close()


def _vectors(count: int, seed: int) -> Vectors:
    """Unit vectors of no meaning: ranking costs the same whatever they say."""
    found = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


async def _send_profiles(
    sender: AIOKafkaProducer, settings: Settings, everyone: Sequence[str]
) -> None:
    topic, vectors = settings.topic("profiles"), _vectors(len(everyone), seed=3)
    sent = [
        await sender.send(topic, _profile(user, vector.round(4)).to_json(), user.encode())
        for user, vector in zip(everyone, vectors, strict=True)
    ]
    await asyncio.gather(*sent)


def _profile(user: str, vector: Vectors) -> Profile:
    return Profile(
        profile_id=user,
        user_id=user,
        version=0,
        as_of=AT,
        sections=Sections(),
        text="-",
        release=RELEASE,
        model="-",
        request_id="-",
        rule="first",
        prompt_version="-",
        prompt_hash="-",
        windows_hash="-",
        applied_offset=0,
        vector=tuple(map(float, vector)),
        vector_release=RELEASE,
        created_at=AT,
    )


@asynccontextmanager
async def _lists(settings: Settings) -> AsyncIterator[dict[str, LastList]]:
    """Every user's last list, kept as they come."""
    lists: dict[str, LastList] = {}
    async with consumer(settings, ("recommendations",), None) as reader:
        reading = asyncio.create_task(_read(reader, lists))
        try:
            yield lists
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _read(reader: AIOKafkaConsumer, lists: dict[str, LastList]) -> None:
    async for record in reader:
        found: dict[str, Any] = orjson.loads(record.value)
        lists[found["user_id"]] = LastList(found["release"], found.get("profile_id"))


async def _switch(
    live: Live, sender: AIOKafkaProducer, lists: dict[str, LastList], users: int
) -> float:
    """Seconds from `serving` until each user's list is of the next release, with the profile."""
    for step in ("published", "items-ready", "profiles-ready"):
        await announce(sender, live.settings, NEXT, step, "bench")
    await asyncio.sleep(READY_S)
    begun = time.monotonic()
    await announce(sender, live.settings, NEXT, "serving", "bench", previous=RELEASE)
    await _until(lambda: sum(one.release == NEXT for one in lists.values()) == users)
    moved_s = time.monotonic() - begun
    await _until(lambda: all(one.profile_id for one in lists.values()))
    return moved_s


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"users were without the lists expected after {WITHIN_S:.0f} s")
        await asyncio.sleep(0.05)
