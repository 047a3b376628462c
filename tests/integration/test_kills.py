"""kill -9 of every role and of the broker while events flow: nothing is lost, nothing is owed."""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Iterator
from itertools import count, islice

import pytest
from aiokafka import AIOKafkaProducer

from models.schemas import Interaction, Item, Profile, ProfileRequest, Recommendation
from models.settings import Settings
from streams.event_log import LOGGED_TOPICS, SegmentLog
from streams.kafka.clients import deliver, producer
from streams.kafka.topics import TOPICS
from streams.parity import check_parity
from streams.replay import replay_histories
from streams.tracker.state import User
from streams.triggers import staleness
from tests.conftest import MakeSettings
from tests.integration.live import Live, home, live, state_on_disk, tracker_state, until
from tests.records import records

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif("KAFKA_BOOTSTRAP" in os.environ, reason="kills its own broker"),
]
NOW = 1_300_000_000_000
MINUTE, DAY = 60_000, 86_400_000
USERS, ITEMS = 60, 40
Sent = tuple[str, bytes]  # (user id, value)


def traffic(seed: int) -> Iterator[Sent]:
    """Interactions for ever: one in ten sent again, one in four late, some that are none."""
    chance = random.Random(seed)
    recent: deque[Sent] = deque(maxlen=300)
    for number in count():
        user = f"u{chance.randrange(USERS)}"
        if number % 101 == 100:
            yield user, b"not an interaction"
            continue
        if recent and chance.random() < 0.1:
            yield chance.choice(recent)
        late = chance.choice((0, 0, 0, 0, 0, 0, 10 * MINUTE, 40 * DAY))
        event = Interaction(
            event_id=f"e{number}",
            user_id=user,
            item_id=f"i{chance.randrange(ITEMS)}",
            type=chance.choice(("purchase", "purchase", "cancel", "view", "impression")),
            timestamp=NOW + number * MINUTE - late,
        )
        recent.append((user, event.to_json()))
        yield recent[-1]


class Flow:
    """Sends traffic until told to stop; what the broker has acknowledged is in `accepted`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.accepted: list[Sent] = []
        self.stop = asyncio.Event()

    async def run(self) -> None:
        events = traffic(seed=7)
        async with producer(self._settings) as sender:
            while not self.stop.is_set():
                await asyncio.gather(*(self._send(sender, one) for one in islice(events, 8)))
                await asyncio.sleep(0.1)  # a steady stream, so that kills fall into it

    async def _send(self, sender: AIOKafkaProducer, one: Sent) -> None:
        user, value = one
        topic = self._settings.topic("interactions")
        await deliver(sender, topic, value, key=user.encode())
        self.accepted.append(one)

    async def goes_on(self, further: int) -> None:
        goal = len(self.accepted) + further
        while len(self.accepted) < goal:
            await asyncio.sleep(0.05)


async def flow_and_kills(stack: Live) -> list[Sent]:
    flow = Flow(stack.settings)
    async with asyncio.TaskGroup() as together:
        together.create_task(flow.run())
        await kill_roles(stack, flow)
        await kill_broker(stack, flow)
        flow.stop.set()
    return flow.accepted


async def kill_roles(stack: Live, flow: Flow) -> None:
    for role in stack.stack.roles:
        await flow.goes_on(150)
        stack.kill(role.name)
        await flow.goes_on(50)
        stack.start(role.name)
    await asyncio.to_thread(stack.up)


async def kill_broker(stack: Live, flow: Flow) -> None:
    for names in (("kafka",), ("kafka", "tracker-0")):
        await flow.goes_on(150)
        stack.kill(*names)
        await asyncio.to_thread(stack.up)


async def publish_items(settings: Settings) -> None:
    async with producer(settings) as sender:
        for number in range(ITEMS):
            item = Item(item_id=f"i{number}", title=f"Lamp number {number} of brass")
            topic = settings.topic("items")
            await deliver(sender, topic, item.to_json(), key=item.item_id.encode())


def readable(settings: Settings) -> dict[tuple[str, int], list[int]]:
    """(topic, partition) → offsets of the records, of all logged topics. Markers are none."""
    found: dict[tuple[str, int], list[int]] = {
        (topic, number): []
        for topic in LOGGED_TOPICS
        for number in range(TOPICS[topic].partition_count(settings))
    }
    for topic in LOGGED_TOPICS:
        for record in records(settings, topic):
            found[topic, record.partition].append(record.offset)
    return found


def unlogged(settings: Settings) -> dict[tuple[str, int], int]:
    """Records that are not in the event log yet, by topic and partition."""
    log = SegmentLog(settings.log_dir)
    missing = {
        place: sum(offset >= log.next_offset(*place) for offset in offsets)
        for place, offsets in readable(settings).items()
    }
    return {place: number for place, number in missing.items() if number}


def owed(settings: Settings) -> list[str]:
    """What is still owed to a user, by the tracker's state and the topics."""
    state = tracker_state(settings)
    requests = newest(settings, "profile-requests", ProfileRequest)
    profiles = newest(settings, "profiles", Profile)
    lists = newest(settings, "recommendations", Recommendation)
    debts = []
    for user_id, user in state.users.items():
        clock = state.clocks[home(user_id, settings)]
        now = user.now(clock, clock.seen)
        due = staleness(user.head.marks(user.newest), now, settings.trigger, settings.windows)
        request, profile = requests.get(user_id), profiles.get(user_id)
        made = lists.get(user_id)
        if due.rule or request is None:
            debts.append(f"{user_id}: no request, though due by rule {due.rule}")
        elif profile is None or order(profile) < order(request):
            debts.append(f"{user_id}: request {request.number} has no profile")
        elif user.profile is None or user.profile.profile_id != profile.profile_id:
            debts.append(f"{user_id}: the tracker has not taken profile {profile.version}")
        elif made is None or made.applied_offset != user.head.applied:
            debts.append(f"{user_id}: no list for offset {user.head.applied}")
        elif made.profile_id != profile.profile_id:
            debts.append(f"{user_id}: no list from profile {profile.version}")
    return debts


def order(one: ProfileRequest | Profile) -> tuple[int, int]:
    return one.applied_offset, one.edits_offset


def newest(settings: Settings, topic: str, schema: type) -> dict[str, object]:
    """The last record of each user."""
    found = (schema.model_validate_json(record.value) for record in records(settings, topic))
    return {one.user_id: one for one in found}


def check_log(settings: Settings, accepted: list[Sent]) -> None:
    """Each offset once, and each accepted record under one of them."""
    log = SegmentLog(settings.log_dir)
    logged = set()
    for (topic, partition), offsets in readable(settings).items():
        rows = list(log.rows(topic, partition, columns=["offset", "value"]))
        assert [row["offset"] for row in rows] == offsets, (topic, partition)
        if topic == "interactions":
            logged |= {row["value"] for row in rows}
    assert {value for _, value in accepted} <= logged


def check_dead_letters(settings: Settings) -> None:
    """What the log calls invalid is what became dead letters."""
    log = SegmentLog(settings.log_dir)
    invalid = {
        (partition, row["offset"])
        for partition in range(settings.kafka.partitions)
        for row in log.rows("interactions", partition, columns=["offset", "status"])
        if row["status"] == "invalid"
    }
    letters = [dict(record.headers) for record in records(settings, "dead-letters")]
    assert {(int(one["palate-partition"]), int(one["palate-offset"])) for one in letters} == invalid


def check_histories(settings: Settings, users: dict[str, User]) -> None:
    log = SegmentLog(settings.log_dir)
    replayed = {
        one.user_id: (one.history, one.applied_offset)
        for partition in range(settings.kafka.partitions)
        for one in replay_histories(log, settings, partition)
    }
    assert len(replayed) == USERS
    assert {name: (u.history, u.head.applied) for name, u in users.items()} == replayed


def test_killed_roles_and_broker_lose_nothing_and_owe_nothing(make_settings: MakeSettings) -> None:
    settings = make_settings(
        kafka={"embedded": True, "partitions": 2, "broker_heap_mb": 256},
        profile={"engine": "extractive"},
        trigger={"calls_per_minute": 6_000, "burst_calls": 200, "min_interval_s": 1.0},
        ranking={"top_k": 3, "interval_s": 0.5},
        log={"seconds": 0.5, "compact_below_rows": 2_000, "compact_every_s": 5.0},
        index={"cooccurrence_every_s": 5.0},
    )
    with live(settings) as stack:
        stack.up()
        asyncio.run(publish_items(settings))
        accepted = asyncio.run(flow_and_kills(stack))
        until(lambda: not owed(settings), lambda: f"all served: {owed(settings)}")
        until(lambda: not unlogged(settings), lambda: f"all logged: {unlogged(settings)}")
        check_log(settings, accepted)
        check_dead_letters(settings)
        check_histories(settings, tracker_state(settings).users)  # on any machine
        report = check_parity(SegmentLog(settings.log_dir), settings)
        assert (report.mismatches, report.waiting) == ([], 0)
        assert report.requests >= USERS
    check_histories(settings, state_on_disk(settings).users)  # on this one
