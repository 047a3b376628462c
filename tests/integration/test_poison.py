"""Whatever stands in a topic, no role stops: numbers, bytes, keys, headers, partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple, get_args

import orjson
import pytest

from deploy.observe import kafka_state, total
from deploy.promotion import releases_topic, rollback
from models.release.store import FolderReleaseStore
from models.schemas import TOPIC_SCHEMAS, Interaction, Item, ReleaseAnnouncement
from models.settings import Settings
from streams.codec import key_of
from streams.event_log import LOGGED_TOPICS, SegmentLog
from streams.kafka.clients import producer
from streams.kafka.topics import TOPICS
from streams.releases import ServingRelease
from tests.conftest import MakeSettings
from tests.fuzz.seeds import seeds
from tests.integration.live import Live, live, until
from tests.records import records

pytestmark = pytest.mark.model  # its roles load torch
NOW = 1_300_000_000_000
WORDS = [
    *(b"1e400", b"-1e400", b"Infinity", b"-Infinity", b"NaN", b"9223372036854775808"),
    *(b"-9223372036854775809", b"1" + b"0" * 400, b'"\\ud800"', b'"\\u0000"', b"null", b"{}"),
    b"[" * 300,
]
NO_MESSAGES = [
    *(None, b"", b"\xff\xfe", b"[" * 100_000, b"{" * 900_000, b"x" * 1_100_000),
    *('{"a":1}'.encode("utf-16"), b"x" * 10_000_000),
]
GOOD = [f"good{number}" for number in range(8)]


class Sent(NamedTuple):
    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def poison(settings: Settings) -> Iterator[Sent]:
    for topic in TOPIC_SCHEMAS:
        good = seeds(topic)[2 if topic == "releases" else 0]
        key, fields = key_of(good), orjson.loads(good.to_json())
        for name in fields:
            marked = orjson.dumps(fields | {name: "@"})
            yield from (Sent(topic, key, marked.replace(b'"@"', word)) for word in WORDS)
        yield from (Sent(topic, key, value) for value in NO_MESSAGES)
        keyless = [] if "compact" in TOPICS[topic].cleanup else [None]  # Kafka refuses it there
        for other in (*keyless, b"", b"\xff", b"k" * 20_000, b"\x00"):
            yield Sent(topic, other, good.to_json())
            yield Sent(topic, other, None if other is not None else b"")  # aiokafka sends no less
        count = TOPICS[topic].partition_count(settings)
        for partition in range(count):
            yield Sent(topic, b"85123A", None, partition)
            yield Sent(topic, key, good.to_json(), partition, (("palate-forwarded", b"1"),))
        yield Sent(topic, key, b"{}", None, (("palate-forwarded", b"\xff"), ("é", b"")))
    yield Sent("dead-letters", b"\xff", b"x", None, (("palate-offset", b"9" * 5_000),))


def good(settings: Settings) -> Iterator[Sent]:
    item = Item(item_id="tea", title="Green tea")
    yield Sent("items", b"tea", item.to_json())
    for user in GOOD:
        event = Interaction(
            event_id=f"e-{user}", user_id=user, item_id="tea", type="purchase", timestamp=NOW
        )
        yield Sent("interactions", user.encode(), event.to_json())


def send(settings: Settings, sent: Iterator[Sent]) -> None:
    async def produce() -> None:
        async with producer(settings) as sender:
            waiting = [
                await sender.send(
                    settings.topic(one.topic),
                    one.value,
                    one.key,
                    partition=one.partition,
                    headers=list(one.headers),
                )
                for one in sent
            ]
            await asyncio.gather(*waiting)

    asyncio.run(produce())


def served(settings: Settings) -> set[str]:
    """Good users with a list and a profile."""
    found = []
    for topic in ("profiles", "recommendations"):
        keys = {record.key for record in records(settings, topic)}
        found.append({user for user in GOOD if user.encode() in keys})
    return found[0] & found[1]


def unlogged(settings: Settings) -> dict[str, int]:
    """Records that the event log lacks, by topic."""
    log = SegmentLog(settings.log_dir)
    last = {
        topic: {record.partition: record.offset for record in records(settings, topic)}
        for topic in LOGGED_TOPICS
    }
    return {
        topic: missing
        for topic, offsets in last.items()
        if (missing := sum(max(0, o + 1 - log.next_offset(topic, p)) for p, o in offsets.items()))
    }


def pids(stack: Live) -> dict[str, int | None]:
    found = {role.name: stack.stack.background(role).process() for role in stack.stack.roles}
    return {name: process.pid if process else None for name, process in found.items()}


@pytest.fixture
def small(kafka: str, make_settings: MakeSettings) -> Settings:
    return make_settings(
        kafka={"partitions": 2},
        profile={"engine": "extractive"},
        trigger={"calls_per_minute": 6_000, "burst_calls": 200, "settle_s": 0.1},
        ranking={"interval_s": 0.1},
        log={"seconds": 0.3},
    )


def test_every_role_goes_on_behind_poison(small: Settings) -> None:
    with live(small) as stack:
        stack.up()
        before = pids(stack)
        send(small, poison(small))
        send(small, good(small))
        until(lambda: served(small) == set(GOOD), lambda: f"served: {served(small)}")
        until(lambda: not unlogged(small), lambda: f"all logged: {unlogged(small)}")
        assert pids(stack) == before
        assert None not in before.values()
        for role in stack.stack.roles:
            failed = total(stack.samples(role.name), "palate_records_failed_total")
            assert failed == 0, stack.log_of(role.name)
    letters = [dict(record.headers) for record in records(small, "dead-letters")]
    reasons = {one.get("palate-reason") for one in letters}
    assert {b"not_json", b"invalid", b"too_large", b"wrong_key", b"empty"} <= reasons


def steps_of_releases_that_are_nowhere() -> Iterator[Sent]:
    """Well-formed, by a producer that is mistaken or hostile; the last one serves."""
    statuses = get_args(ReleaseAnnouncement.model_fields["status"].annotation)
    for name in ("../x", "é" * 256, "gone", "ghost"):
        for status in sorted(statuses, key=lambda one: one == "serving"):
            step = ReleaseAnnouncement(release=name, status=status, previous="nowhere", at=NOW)
            yield Sent("releases", key_of(step), step.to_json())


def in_force(settings: Settings) -> ServingRelease:
    found = ServingRelease()
    for record in records(settings, "releases"):
        found.on_record(record)
    return found


def unavailable(stack: Live) -> list[float]:
    """Of tracker, profiler and indexer."""
    roles = (role.name for role in stack.stack.roles if role.name != "recorder")
    return [total(stack.samples(name), "palate_release_unavailable") for name in roles]


def test_a_release_in_force_that_is_nowhere_stops_no_role_and_the_one_before_serves_on(
    small: Settings,
) -> None:
    with live(small) as stack:
        stack.up()
        before, users = pids(stack), iter(GOOD)
        assert in_force(small).id == "base-0"
        send(small, steps_of_releases_that_are_nowhere())
        until(lambda: unavailable(stack) == [1.0] * 3, lambda: f"said: {unavailable(stack)}")
        send(small, good(small))
        until(lambda: served(small) == set(GOOD), lambda: f"served: {served(small)}")
        assert pids(stack) == before
        stack.kill(*before)
        stack.up()  # with that record as the last one
        count = len(records(small, "recommendations"))
        event = Interaction(
            event_id="later", user_id=next(users), item_id="tea", type="click", timestamp=NOW + 1
        )
        send(small, iter([Sent("interactions", event.user_id.encode(), event.to_json())]))
        until(lambda: len(records(small, "recommendations")) > count, lambda: "no list after it")
        releases = {
            orjson.loads(record.value)["release"] for record in records(small, "recommendations")
        }
        assert releases == {"base-0"}
        assert in_force(small).id == "ghost"
        status = stack.palate("status")["kafka"]
        assert (status["serving"], len(status["cannot_serve"])) == ("ghost", 3)
        asyncio.run(_back(small))
        until(lambda: unavailable(stack) == [0.0] * 3, lambda: f"said: {unavailable(stack)}")
        assert in_force(small).id == "base-0"


async def _back(settings: Settings) -> None:
    async with releases_topic(settings) as topic:
        await rollback(topic, FolderReleaseStore(settings.releases_dir))


def test_what_was_aborted_is_in_no_history_and_no_log(small: Settings) -> None:
    """And an open transaction holds its partition up, no role, and no longer than it is open."""

    def event(name: str) -> Sent:
        made = Interaction(
            event_id=name, user_id="ann", item_id="tea", type="purchase", timestamp=NOW
        )
        return Sent("interactions", b"ann", made.to_json())

    async def produce() -> None:
        topic = small.topic("interactions")
        async with producer(small, transactional_id=f"{small.kafka.prefix}shop") as sender:
            for number in range(4):
                await sender.begin_transaction()
                one = event(f"aborted{number}")
                await sender.send_and_wait(topic, one.value, one.key)
                await sender.abort_transaction()
                await sender.begin_transaction()
                one = event(f"committed{number}")
                await sender.send_and_wait(topic, one.value, one.key)
                await sender.commit_transaction()
            await sender.begin_transaction()
            one = event("at last")
            await sender.send_and_wait(topic, one.value, one.key)
            send_beside = asyncio.to_thread(lambda: asyncio.run(_plainly(small, event("plain"))))
            await send_beside
            await asyncio.sleep(2.0)
            assert "plain" not in _logged(small)
            await sender.commit_transaction()

    with live(small) as stack:
        stack.up()
        send(small, iter([Sent("items", b"tea", Item(item_id="tea", title="Tea").to_json())]))
        asyncio.run(produce())
        expected = {*(f"committed{n}" for n in range(4)), "at last", "plain"}
        until(lambda: _logged(small) >= expected, lambda: f"logged: {_logged(small)}")
        assert _logged(small) == expected
        until(lambda: _applied(stack) == len(expected), lambda: f"applied: {_applied(stack)}")
        until(lambda: _unread(small) == 0, lambda: f"unread: {_unread(small)}")
        stack.kill("tracker-0", "recorder")
        stack.up()  # behind markers that end the topic
        assert _logged(small) == expected


async def _plainly(settings: Settings, one: Sent) -> None:
    async with producer(settings) as sender:
        await sender.send_and_wait(settings.topic(one.topic), one.value, one.key)


def _logged(settings: Settings) -> set[str]:
    log = SegmentLog(settings.log_dir)
    return {
        row["event_id"]
        for partition in range(settings.kafka.partitions)
        for row in log.rows("interactions", partition, columns=["event_id"])
    }


def _applied(stack: Live) -> float:
    return total(stack.samples("tracker-0"), "palate_events_total", outcome="applied")


def _unread(settings: Settings) -> int:
    """What `palate status` says is not read yet; a transaction's marker is no record."""
    lags = asyncio.run(kafka_state(settings)).lags
    return sum(lag.records for lag in lags if lag.topic == settings.topic("interactions"))
