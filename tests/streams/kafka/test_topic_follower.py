from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from streams.kafka.clients import consumer, deliver, producer
from streams.kafka.topic_follower import TopicFollower
from streams.kafka.topics import ensure_topics
from streams.metrics import RoleMetrics
from tests.patience import Deadline
from tests.streams.clients import make_topic, read, started, until

pytestmark = pytest.mark.service


def followed(settings, topic, seen):
    return TopicFollower(settings, topic, lambda record: seen.append((record.key, record.value)))


def test_a_follower_of_an_empty_topic_is_caught_up_at_once_and_then_follows(kafka, make_settings):
    settings = make_settings()
    seen = []

    async def run():
        await ensure_topics(settings, ["items"])
        follower = followed(settings, "items", seen)
        assert "not started" in follower.not_ready
        await follower.start()
        await follower.caught_up()
        assert follower.not_ready is None
        async with started(lambda: producer(settings)) as sender:
            await deliver(sender, settings.topic("items"), b"one", key=b"i")
            await deliver(sender, settings.topic("items"), None, key=b"i")
        await until(lambda: len(seen) == 2)
        await follower.stop()
        await follower.stop()

    asyncio.run(run())
    assert seen == [(b"i", b"one"), (b"i", None)]


def test_caught_up_means_that_all_records_of_all_partitions_were_seen(kafka, make_settings):
    settings = make_settings(kafka={"partitions": 3})
    seen = []

    async def run():
        await ensure_topics(settings, ["items"])
        async with started(lambda: producer(settings)) as sender:
            sent = [
                await sender.send(settings.topic("items"), b"v%d" % n, key=b"%d" % n)
                for n in range(5_000)
            ]
            await asyncio.gather(*sent)
        follower = followed(settings, "items", seen)
        await follower.start()
        await follower.caught_up()
        count = len(seen)
        await follower.stop()
        return count

    assert asyncio.run(run()) == 5_000
    assert {key for key, _ in seen} == {b"%d" % n for n in range(5_000)}


def test_a_transaction_marker_at_the_end_does_not_keep_a_follower_waiting(kafka, make_settings):
    """The end offset counts the marker, which no consumer is given."""
    settings = make_settings()
    seen = []

    async def run():
        await make_topic(settings, "items")
        transactional = {"transactional_id": settings.topic("writer")}
        async with (
            started(lambda: producer(settings, **transactional)) as sender,
            sender.transaction(),
        ):
            await sender.send_and_wait(settings.topic("items"), b"v", key=b"i")
        follower = followed(settings, "items", seen)
        await follower.start()
        await follower.caught_up()
        await follower.stop()

    asyncio.run(run())
    assert seen == [(b"i", b"v")]


def test_holes_left_by_compaction_do_not_keep_a_follower_waiting(kafka, make_settings):
    settings = make_settings()
    topic = settings.topic("items")
    eager = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "100",
        "delete.retention.ms": "0",
    }

    async def first_offsets():
        async with started(lambda: consumer(settings, ["items"], None)) as reader:
            return [record.offset for record in await read(reader, 2)]

    async def run():
        await make_topic(settings, "items", **eager)
        async with started(lambda: producer(settings, linger_ms=0)) as sender:
            deadline = Deadline()
            while True:  # every record may close a segment, which may then be cleaned
                for n in range(10):
                    await deliver(sender, topic, b"%d" % n, key=b"a", partition=0)
                await deliver(sender, topic, None, key=b"gone", partition=0)
                offsets = await first_offsets()
                if offsets[0] > 0:
                    break
                assert not deadline.over(), "the broker did not compact in time"
        seen = []
        follower = TopicFollower(settings, "items", lambda r: seen.append(r.offset))
        await follower.start()
        await follower.caught_up()
        await follower.stop()
        return seen

    seen = asyncio.run(run())
    assert seen[0] > 0
    assert seen == sorted(set(seen))


def test_a_record_that_the_callback_fails_with_is_left_out_and_counted(kafka, make_settings):
    settings, registry, seen = make_settings(), CollectorRegistry(), []

    def refuse(record):
        if record.value == b"bad":
            raise ZeroDivisionError("cannot take this in")
        seen.append(record.value)

    async def run():
        await ensure_topics(settings, ["items"])
        async with started(lambda: producer(settings)) as sender:
            for value in (b"bad", b"good"):
                await deliver(sender, settings.topic("items"), value, key=b"i")
        follower = TopicFollower(settings, "items", refuse, RoleMetrics(registry))
        await follower.start()
        await follower.caught_up()
        await follower.stop()

    asyncio.run(run())
    assert seen == [b"good"]
    labels = {"topic": settings.topic("items")}
    assert registry.get_sample_value("palate_records_failed_total", labels) == 1


def test_a_callback_that_fails_for_no_records_sake_ends_the_follower(kafka, make_settings):
    settings = make_settings()

    def refuse(record):
        raise OSError("no space left on the device")

    async def run():
        await ensure_topics(settings, ["items"])
        async with started(lambda: producer(settings)) as sender:
            await deliver(sender, settings.topic("items"), b"v", key=b"i")
        follower = TopicFollower(settings, "items", refuse)
        await follower.start()
        with pytest.raises(OSError, match="no space left"):
            await follower.caught_up()
        with pytest.raises(OSError, match="no space left"):
            await follower.failed()
        assert "no space left" in follower.not_ready
        await follower.stop()

    asyncio.run(run())


def test_a_follower_waits_for_its_topic_to_exist(kafka, make_settings, caplog):
    settings = make_settings()
    seen = []

    async def run():
        follower = followed(settings, "items", seen)
        starting = asyncio.create_task(follower.start())
        await until(lambda: "waiting for topic" in caplog.text)
        await ensure_topics(settings, ["items"])
        await starting
        await follower.caught_up()
        await follower.stop()

    asyncio.run(run())
    assert caplog.text.count("waiting for topic") == 1
