from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.codec import DEAD_LETTER_BYTES, Rejected, decode_interaction, partition_for
from streams.kafka import (
    TopicFollower,
    client_options,
    consumer,
    dead_letter_send,
    deliver,
    full_name,
    group_id,
    partition_lags,
    producer,
    start_client,
)
from streams.topics import ensure_topics

pytestmark = pytest.mark.service


@asynccontextmanager
async def started(make):
    client = await start_client(make)
    try:
        yield client
    finally:
        await client.stop()


async def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not reached in time"
        await asyncio.sleep(0.02)


async def read(reader, count):
    records = []
    async with asyncio.timeout(30):
        while len(records) < count:
            for batch in (await reader.getmany(timeout_ms=200)).values():
                records += batch
    return records


async def make_topic(settings, name, **config):
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    await admin.create_topics([NewTopic(full_name(settings, name), 2, 1, topic_configs=config)])
    await admin.close()


def test_a_ten_megabyte_message_arrives_and_becomes_a_dead_letter(kafka, make_settings):
    settings = make_settings()
    huge = b"x" * 10_000_000

    async def run():
        await ensure_topics(settings)
        async with AsyncExitStack() as stack:
            sender = await stack.enter_async_context(started(lambda: producer(settings)))
            await deliver(sender, settings.topic("interactions"), huge, key=b"u")
            reader = await stack.enter_async_context(
                started(lambda: consumer(settings, ["interactions", "dead-letters"], None))
            )
            [event] = await read(reader, 1)
            rejected = decode_interaction(event, settings.kafka.partitions, 0)
            assert isinstance(rejected, Rejected)
            await dead_letter_send(sender, settings, event, rejected)
            [letter] = await read(reader, 1)
            return event, letter

    event, letter = asyncio.run(run())
    assert event.value == huge
    assert letter.topic == settings.topic("dead-letters")
    assert (letter.key, letter.value) == (b"u", huge[:DEAD_LETTER_BYTES])
    headers = dict(letter.headers)
    assert headers["palate-reason"] == b"too_large"
    assert headers["palate-topic"] == settings.topic("interactions").encode()
    assert headers["palate-offset"] == b"0"


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_records_arrive_whichever_codec_the_producer_chose(codec, kafka, make_settings):
    settings = make_settings()

    async def run():
        await make_topic(settings, "any")
        async with started(lambda: producer(settings, compression_type=codec)) as sender:
            await deliver(sender, settings.topic("any"), b"text " * 100, key=b"k")
        async with started(lambda: consumer(settings, ["any"], None)) as reader:
            return await read(reader, 1)

    [record] = asyncio.run(run())
    assert record.value == b"text " * 100


def test_keys_go_to_the_partition_that_the_codec_expects(kafka, make_settings):
    settings = make_settings(kafka={"partitions": 5})
    keys = [text.encode() for text in ("u1", "Zoë", "", "12345", "日本", "a" * 200)]

    async def run():
        await ensure_topics(settings, ["interactions"])
        async with started(lambda: producer(settings)) as sender:
            sent = [
                await sender.send_and_wait(settings.topic("interactions"), b"{}", key=key)
                for key in keys
            ]
        return [metadata.partition for metadata in sent]

    assert asyncio.run(run()) == [partition_for(key, 5) for key in keys]


def test_kafkas_time_is_the_brokers_so_that_old_events_do_not_expire(kafka, make_settings):
    settings = make_settings(kafka={"partitions": 1})

    async def run():
        await ensure_topics(settings, ["interactions"])
        async with started(lambda: producer(settings)) as sender:
            topic = settings.topic("interactions")
            await sender.send_and_wait(topic, b"{}", key=b"u", timestamp_ms=1_000_000_000_000)
        async with started(lambda: consumer(settings, ["interactions"], None)) as reader:
            return await read(reader, 1)

    [record] = asyncio.run(run())
    assert abs(record.timestamp / 1000 - time.time()) < 3600


def test_a_group_reads_on_from_what_was_committed_by_hand(kafka, make_settings):
    settings = make_settings(kafka={"partitions": 1})
    group = group_id(settings, "reader")
    place = TopicPartition(settings.topic("interactions"), 0)

    async def run():
        await ensure_topics(settings, ["interactions"])
        async with started(lambda: producer(settings)) as sender:
            for n in range(5):
                await deliver(sender, place.topic, b"%d" % n, key=b"u")
        async with started(lambda: consumer(settings, ["interactions"], group)) as reader:
            await read(reader, 5)
            before = await reader.committed(place)
            await reader.commit({place: 3})
        async with started(lambda: consumer(settings, ["interactions"], group)) as reader:
            rest = await read(reader, 2)
            assert await partition_lags(reader) == {place: 0}
        return before, [record.value for record in rest]

    before, rest = asyncio.run(run())
    assert before is None
    assert rest == [b"3", b"4"]


# -- TopicFollower -----------------------------------------------------------------------------


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
        await asyncio.wait_for(follower.caught_up(), 30)
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
        await asyncio.wait_for(follower.caught_up(), 60)
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
        await asyncio.wait_for(follower.caught_up(), 30)
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
            deadline = time.monotonic() + 90
            while True:  # every record may close a segment, which may then be cleaned
                for n in range(10):
                    await deliver(sender, topic, b"%d" % n, key=b"a", partition=0)
                await deliver(sender, topic, None, key=b"gone", partition=0)
                offsets = await first_offsets()
                if offsets[0] > 0:
                    break
                assert time.monotonic() < deadline, "the broker did not compact in time"
        seen = []
        follower = TopicFollower(settings, "items", lambda r: seen.append(r.offset))
        await follower.start()
        await asyncio.wait_for(follower.caught_up(), 30)
        await follower.stop()
        return seen

    seen = asyncio.run(run())
    assert seen[0] > 0
    assert seen == sorted(set(seen))


def test_a_callback_that_fails_ends_the_follower_and_tells_who_waits(kafka, make_settings):
    settings = make_settings()

    def refuse(record):
        raise ValueError("cannot take this in")

    async def run():
        await ensure_topics(settings, ["items"])
        async with started(lambda: producer(settings)) as sender:
            await deliver(sender, settings.topic("items"), b"v", key=b"i")
        follower = TopicFollower(settings, "items", refuse)
        await follower.start()
        with pytest.raises(ValueError, match="cannot take this in"):
            await asyncio.wait_for(follower.caught_up(), 30)
        with pytest.raises(ValueError, match="cannot take this in"):
            await follower.failed()
        assert "cannot take this in" in follower.not_ready
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
        await asyncio.wait_for(starting, 30)
        await asyncio.wait_for(follower.caught_up(), 30)
        await follower.stop()

    asyncio.run(run())
    assert caplog.text.count("waiting for topic") == 1
