"""When reading can be said to go on, by what the broker answers. Time is what the test says."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from models.settings import LivenessSettings
from streams.kafka import client_options, consumer, deliver, producer
from streams.reading import Progress, Reading, positions_of
from streams.topics import ensure_topics
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
    return Progress(LIMITS, clock)


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
            reading = Reading(settings, lambda: positions_of(reader))
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
