"""A user with whom a loop fails is set apart and counted; all others are served."""

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka.errors import MessageSizeTooLargeError, TopicAuthorizationFailedError
from prometheus_client import CollectorRegistry

from models.errors import PartitionLost, StoreDamaged, TopicError
from models.schemas import ProfileEdit
from models.settings import Settings, load_settings
from streams.partition_clock import PartitionClock
from streams.tracker import profile_requests as asking_module
from streams.tracker import quarantine as apart_module
from streams.tracker import recommendations as serving_module
from streams.tracker.partition_takeover import Partitions
from streams.tracker.partition_writer import Output, OutputsRefused, PartitionWriter
from streams.tracker.role import TrackerRole
from streams.tracker.runtime import Batch
from streams.tracker.state import CLOCK_KEY, head_key, profile_key
from tests.streams.logged import NOW
from tests.streams.tracker.arranging import Letters, event, rows, tracker

USERS = ("ann", "bob", "cat")


@pytest.fixture
def settings(tmp_path) -> Settings:
    ranking = {"interval_s": 0.0}
    trigger = {"settle_s": 0.0, "min_interval_s": 0.0, "calls_per_minute": 6_000}
    where = {"partitions": 1, "bootstrap": "127.0.0.1:1"}
    return load_settings(data_dir=tmp_path, kafka=where, ranking=ranking, trigger=trigger)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def world(settings: Settings, registry: CollectorRegistry) -> tuple[TrackerRole, Letters]:
    """Three users to whom a list and a profile are owed."""
    role, letters = tracker(settings, registry)
    release = SimpleNamespace(catalogue=[1], release="base-0", neighbours=SimpleNamespace(id="c"))
    role.recommender._views = SimpleNamespace(snapshot=release, texts=role.views.texts)
    role.recommender._rank = lambda _, orders: [() for _ in orders]
    sent = [event(number, user) for number, user in enumerate(USERS)]
    asyncio.run(role.intake.on_interactions(rows("interactions", *sent)))
    return role, letters


@pytest.fixture
def queries(monkeypatch):
    monkeypatch.setattr(serving_module, "order_query", lambda user, *_: user.user_id)


def taken(letters: Letters, field: str) -> list[str]:
    """Users of the messages that were sent since the last call."""
    values = [msgspec.json.decode(value) for _, value, _ in letters.sent]
    letters.sent.clear()
    return sorted(value["user_id"] for value in values if field in value)


def failed(registry: CollectorRegistry, loop: str) -> float | None:
    return registry.get_sample_value("palate_users_failed_total", {"loop": loop})


def poisoned(true, error: Exception):
    def work(user, *rest):
        if user.user_id == "ann":
            raise error
        return true(user, *rest)

    return work


def test_the_others_get_their_profile(world, registry, monkeypatch, caplog) -> None:
    role, letters = world
    true = asking_module.build_request
    monkeypatch.setattr(asking_module, "build_request", poisoned(true, ValueError("poison")))
    assert asyncio.run(role.requester.ask(role.working_set.clocks)) == 2
    assert taken(letters, "windows_hash") == ["bob", "cat"]
    assert asyncio.run(role.requester.ask(role.working_set.clocks)) == 0
    assert failed(registry, "ask") == 1
    assert "Traceback" in caplog.text
    assert "ann" in caplog.text
    monkeypatch.setattr(asking_module, "build_request", true)
    pass_a_while(monkeypatch)
    assert asyncio.run(role.requester.ask(role.working_set.clocks)) == 1
    assert taken(letters, "windows_hash") == ["ann"]


def pass_a_while(monkeypatch) -> None:
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + apart_module.APART_S + 1)
    monkeypatch.setattr(apart_module, "time", later)


def test_the_others_get_their_list(world, registry, monkeypatch, queries) -> None:
    role, letters = world
    work = poisoned(serving_module.order_query, ZeroDivisionError())
    monkeypatch.setattr(serving_module, "order_query", work)
    assert asyncio.run(role.recommender.serve(role.working_set.clocks)) == 2
    assert taken(letters, "recommendation_id") == ["bob", "cat"]
    assert asyncio.run(role.recommender.serve(role.working_set.clocks)) == 0
    assert failed(registry, "serve") == 1
    monkeypatch.setattr(serving_module, "order_query", lambda *_: "")
    pass_a_while(monkeypatch)
    assert asyncio.run(role.recommender.serve(role.working_set.clocks)) == 1
    assert taken(letters, "recommendation_id") == ["ann"]


def test_a_user_who_cannot_be_ranked_spoils_no_batch(world, registry, queries) -> None:
    role, letters = world

    def rank(_, orders):
        if any(order.place[1] == "ann" for order in orders):
            raise RuntimeError("one row is none")
        return [() for _ in orders]

    role.recommender._rank = rank
    assert asyncio.run(role.recommender.serve(role.working_set.clocks)) == 2
    assert taken(letters, "recommendation_id") == ["bob", "cat"]
    assert failed(registry, "serve") == 1


@pytest.mark.parametrize("error", [PartitionLost(0, None), TopicError("anew"), OSError(28, "full")])
def test_what_is_no_users_fault_is_raised(world, monkeypatch, queries, error) -> None:
    role, _ = world
    monkeypatch.setattr(serving_module, "order_query", poisoned(lambda *_: "", error))
    waiting = len(role.working_set.waiting)
    with pytest.raises(type(error)):
        asyncio.run(role.recommender.serve(role.working_set.clocks))
    assert len(role.working_set.waiting) == waiting  # nobody's list is forgotten
    monkeypatch.setattr(asking_module, "build_request", poisoned(lambda *_: None, error))
    with pytest.raises(type(error)):
        asyncio.run(role.requester.ask(role.working_set.clocks))


def test_a_refused_list_is_given_up_until_the_next_event(
    world, registry, monkeypatch, queries, caplog
) -> None:
    role, letters = world
    role.partitions.fail = pytest.fail
    asyncio.run(role.recommender.serve(role.working_set.clocks))
    asyncio.run(role.requester.ask(role.working_set.clocks))
    outputs = [Output(topic, b"ann", value, 0) for topic, value, _ in letters.sent
               if b'"user_id":"ann"' in value]  # fmt: skip
    role.refusals.note(OutputsRefused(outputs, MessageSizeTooLargeError()))
    assert (failed(registry, "serve"), failed(registry, "ask")) == (1, 1)
    assert f"{len(outputs[0].value)} bytes" in caplog.text
    assert role.recommender.quarantine.holds((0, "ann"))
    pass_a_while(monkeypatch)
    assert role.recommender.quarantine.returned({0}) == []
    asyncio.run(
        role.intake.on_interactions([rows("interactions", event(9, "ann"))[0]._replace(offset=3)])
    )
    assert role.recommender.quarantine.returned({0}) == [(0, "ann")]
    assert role.requester.quarantine.returned({0}) == [(0, "ann")]


def test_a_topic_that_may_not_be_written_ends_the_role(world) -> None:
    role, _ = world
    errors: list[Exception] = []
    role.partitions.fail = errors.append
    output = Output("recommendations", b"ann", b'{"applied_offset":1}', 0)
    role.refusals.note(OutputsRefused([output], TopicAuthorizationFailedError()))
    assert [type(error) for error in errors] == [TopicError]


def test_an_event_that_kafka_takes_nowhere_becomes_a_dead_letter(world) -> None:
    role, letters = world
    role.partitions.fail = pytest.fail
    (row,) = rows("interactions", event(5, "dan"))
    misrouted = row._replace(offset=3, key=b"another")
    asyncio.run(role.intake.on_interactions([misrouted]))
    topic, value, headers = letters.sent[-1]
    assert topic == "interactions"
    refused = Output(topic, b"dan", value, 0, tuple(headers.items()))
    role.refusals.note(OutputsRefused([refused], MessageSizeTooLargeError()))
    asyncio.run(role.intake.on_interactions([misrouted._replace(offset=4)]))
    assert letters.sent[-1][0] == "dead-letters"


@pytest.mark.parametrize("value", [b"garbage", b"", b"\x90\x91", b"\xff", b'{"a":1}'])
def test_damaged_state_is_passed_over_and_counted(world, registry, caplog, value) -> None:
    caplog.set_level(logging.ERROR)
    role, _ = world
    records = role.partitions.records
    for key in (head_key("ann"), b"u\xff\xfe", b"p\xff", profile_key("bob"), CLOCK_KEY):
        records[0, key] = value
    role.working_set.users.forget_cached(0)
    role.partitions.scan = lambda _, prefix, after=b"": sorted(
        (key, found) for (_, key), found in records.items() if key.startswith(prefix)
    )

    async def nothing(*_):
        return None

    role.recovery._check_continuity = nothing
    asyncio.run(role.recovery.read(0))
    assert role.working_set.clocks[0] == PartitionClock()
    assert role.working_set.users.get(0, "ann").history == ()
    assert [e.event_id for e in role.working_set.users.get(0, "bob").history] == ["e1"]
    assert registry.get_sample_value("palate_state_records_damaged_total") >= 5
    assert "palate rebuild" in caplog.text


async def without_gaps(delivered, _):
    yield delivered


def test_profiles_that_were_not_committed_are_read_again(world) -> None:
    role, _ = world
    role.working_set.next_profiles[0] = 3

    async def lost(_):
        raise PartitionLost(0, None)

    role.partitions.committed = lost
    (row,) = rows("profiles", event(1, "ann"))
    role.gaps.complete = without_gaps
    with pytest.raises(PartitionLost):
        asyncio.run(role.intake.on_profiles([row._replace(topic="profiles", offset=7)]))
    assert role.working_set.next_profiles == {0: 3}


def test_a_batch_of_partitions_that_were_given_back_is_left_undone(world, settings) -> None:
    """As when the role ends; worked again and again, it would keep the loop from ending."""
    role, _ = world
    partitions = Partitions(settings, 0, role.metrics, without_gaps, lambda *_: None)
    role.delivery._partitions = role.assignment._partitions = partitions
    role.assignment.generation, tried = 7, []

    async def work(delivered):
        tried.append(delivered)
        assert len(tried) < 3
        if delivered:
            await partitions.committed([0])

    (row,) = rows("profiles", event(1, "ann"))
    message = SimpleNamespace(**row._asdict(), generation_id=7)
    assert not asyncio.run(role.delivery._worked(work, Batch([SimpleNamespace(message=message)])))
    assert not any(tried)


@pytest.mark.parametrize("kafka_time", [0, -1, 1_764_000_000, NOW * 1000])
def test_an_edit_without_kafkas_time_is_refused(world, kafka_time: int) -> None:
    role, letters = world
    edit = ProfileEdit(edit_id="x", user_id="ann", action="forget", timestamp=NOW)
    (row,) = rows("profile-edits", edit)
    asyncio.run(role.intake.on_edits([row._replace(timestamp=kafka_time)]))
    assert letters.sent[-1][2]["palate-reason"] == b"no_time"
    assert role.working_set.users.get(0, "ann").history


def test_whoever_waits_for_a_commit_that_is_cancelled_hears_that_the_partition_is_lost() -> None:
    """As when local state turns out to be damaged while a slow broker has a transaction."""

    class Silent:
        async def begin_transaction(self):
            return None

        async def send(self, *_, **__):
            return asyncio.get_running_loop().create_future()

        async def stop(self):
            return None

    store = SimpleNamespace(position=SimpleNamespace(next_offset=0), close=lambda: None)

    async def scenario() -> None:
        closing = []
        lost = lambda writer, _: closing.append(asyncio.create_task(writer.close()))  # noqa: E731
        writer = PartitionWriter(0, "changelog", Silent(), store, None, lost)
        writer.write([(b"k", b"v")])
        waiting = asyncio.create_task(writer.committed())
        await asyncio.sleep(0.05)
        writer.lose(StoreDamaged("a file is missing"))
        with pytest.raises(PartitionLost):
            await waiting

    asyncio.run(scenario())
