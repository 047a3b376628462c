"""When reading can be said to go on, by what the broker answers. Time is what the test says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry

import streams.kafka.consumption as reading_module
from models.fakes import HashEmbedder, MemoryReleaseStore
from models.settings import LivenessSettings, load_settings
from streams.kafka.clients import client_options, consumer, deliver, producer
from streams.kafka.consumption import ConsumerProgress, ConsumptionWatch, positions_of
from streams.kafka.topics import ensure_topics
from streams.metrics import ProfilerMetrics
from streams.profiler.intake import Intake
from streams.profiler.profile_writer import Deps
from streams.profiler.release_loader import Sources
from streams.profiler.replica import Replica
from streams.profiler.role import Profiler
from tests.streams.clients import started, until

ITEMS, OTHER = TopicPartition("items", 0), TopicPartition("items", 1)
LIMITS = LivenessSettings(away_s=10.0, stalled_s=60.0)


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    return ConsumerProgress(LIMITS, clock)


def test_a_broker_that_has_not_answered_for_a_while_is_away_and_back_when_it_answers(
    clock, progress
):
    assert progress.not_ready is None  # it has had no time to answer yet
    clock.now += 11
    assert progress.not_ready == "Kafka does not answer"
    progress.answered({ITEMS: 5}, {ITEMS: 5})
    assert progress.not_ready is None
    clock.now += 11
    assert progress.not_ready == "Kafka does not answer"


def test_where_nothing_is_to_be_read_standing_still_is_no_standstill(clock, progress):
    for _ in range(100):
        clock.now += 5
        progress.answered({ITEMS: 5}, {ITEMS: 5})
    assert progress.not_ready is None
    progress.answered({ITEMS: 5}, {ITEMS: 6})  # a record has come just now
    assert progress.not_ready is None


def test_records_that_nobody_reads_are_a_standstill_until_reading_moves(clock, progress):
    for _ in range(15):
        clock.now += 5
        progress.answered({ITEMS: 5, OTHER: 1}, {ITEMS: 9, OTHER: 1})
    assert progress.not_ready == (
        "topic items partition 0 has records to read, and reading stands still"
    )
    progress.answered({ITEMS: 6, OTHER: 1}, {ITEMS: 9, OTHER: 1})
    assert progress.not_ready is None


def test_far_behind_is_not_standing_still(clock, progress):
    for position in range(100):
        clock.now += 5
        progress.answered({ITEMS: position}, {ITEMS: 10_000})
        assert progress.not_ready is None


def test_a_topic_that_ends_before_what_was_read_of_it_was_made_anew(progress):
    progress.answered({ITEMS: 5}, {ITEMS: 0})
    assert "items partition 0 ends before what was read of it" in progress.not_ready


def test_a_partition_that_is_no_longer_ours_is_forgotten(clock, progress):
    for _ in range(15):
        clock.now += 5
        progress.answered({ITEMS: 5}, {ITEMS: 9})
    progress.answered({OTHER: 1}, {OTHER: 1})
    assert progress.not_ready is None


def test_a_topic_that_is_gone_is_named(progress):
    progress.missing({"items"})
    assert progress.not_ready == "topic items is not there: it was deleted while it was read"
    progress.answered({ITEMS: 0}, {ITEMS: 0})
    assert progress.not_ready is None


def test_a_partition_that_is_never_fetched_stands_still_even_if_it_is_empty(clock, progress):
    for _ in range(15):
        progress.answered({ITEMS: None, OTHER: 1}, {ITEMS: 0, OTHER: 1})
        clock.now += 5
    assert progress.not_ready == "topic items partition 0 is assigned, and nothing of it is fetched"
    progress.answered({ITEMS: 0, OTHER: 1}, {ITEMS: 0, OTHER: 1})
    assert progress.not_ready is None


def test_a_partition_just_assigned_has_time_to_be_fetched(clock, progress):
    progress.answered({ITEMS: None}, {ITEMS: 9})
    clock.now += 5
    progress.answered({ITEMS: None}, {ITEMS: 9})
    assert progress.not_ready is None


class AwayClient:
    """A client whose broker does not answer."""

    async def topics(self):
        raise KafkaConnectionError("away")

    async def end_offsets(self, places):
        raise KafkaConnectionError("away")

    async def stop(self):
        pass


@pytest.mark.parametrize("positions", [{}, {ITEMS: 1}, {ITEMS: None}], ids=str)
def test_a_broker_is_away_whether_or_not_anything_is_read(monkeypatch, positions):
    monkeypatch.setattr(reading_module, "ASK_EVERY_S", 0.01)
    monkeypatch.setattr(reading_module, "start_client", lambda make: asyncio.sleep(0, AwayClient()))

    async def run():
        reading = ConsumptionWatch(
            load_settings(liveness={"away_s": 0.2}), lambda: asyncio.sleep(0, positions)
        )
        watching = asyncio.create_task(reading.watch())
        await until(lambda: reading.not_ready == "Kafka does not answer")
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(run())


class Assigned:
    """A consumer with two partitions, one of which was never fetched."""

    def assignment(self):
        return {ITEMS, OTHER}

    def highwater(self, place):
        return 9 if place == ITEMS else None

    async def position(self, place):
        assert place == ITEMS, "it would wait for ever"
        return 5


def test_a_partition_that_was_never_fetched_is_among_the_positions():
    assert asyncio.run(positions_of(Assigned())) == {ITEMS: 5, OTHER: None}


def test_a_profiler_has_joined_when_the_group_says_what_is_its_own():
    async def run():
        metrics = ProfilerMetrics(CollectorRegistry())
        intake = Intake(load_settings(), metrics, lambda gone: None, Replica())
        states = [intake.joined]
        await intake.on_partitions_assigned(set())
        states.append(intake.joined)
        await intake.on_partitions_revoked(set())
        return [*states, intake.joined]

    assert asyncio.run(run()) == [False, True, False]


@pytest.mark.service
def test_a_profiler_that_has_only_asked_to_join_is_not_ready(kafka, make_settings):
    settings = make_settings()

    async def run():
        sources = Sources(MemoryReleaseStore(), lambda _: HashEmbedder())
        deps = Deps(None, HashEmbedder(), len, sources)
        role = Profiler(settings, deps, CollectorRegistry())
        answering = SimpleNamespace(intake=None, oldest_s=0.0)
        answering.intake = Intake(settings, role._metrics, lambda gone: None, Replica())
        role._worker = answering
        await ensure_topics(settings)
        await answering.intake.start()
        try:
            assert role._standing_still() == "joining the group"
            await until(lambda: role._standing_still() is None)
        finally:
            await answering.intake.stop()

    asyncio.run(run())


@pytest.mark.service
def test_on_a_broker_unread_records_and_a_deleted_topic_are_seen(kafka, make_settings):
    settings = make_settings(liveness={"away_s": 30.0, "stalled_s": 0.5}, kafka={"partitions": 1})
    topic = settings.topic("items")

    async def run():
        await ensure_topics(settings, ["items"])
        async with (
            started(lambda: producer(settings)) as sender,
            started(lambda: consumer(settings, (), None)) as reader,
        ):
            reader.assign([TopicPartition(topic, 0)])
            reading = ConsumptionWatch(settings, lambda: positions_of(reader))
            watching = asyncio.create_task(reading.watch())
            await deliver(sender, topic, b"one", key=b"i")
            await until(lambda: "stands still" in (reading.not_ready or ""))
            while not await reader.getmany(timeout_ms=200):
                pass
            await until(lambda: reading.not_ready is None)
            admin = AIOKafkaAdminClient(**client_options(settings))
            await admin.start()
            await admin.delete_topics([topic])
            await admin.close()
            await until(lambda: "is not there" in (reading.not_ready or ""))
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(run())
