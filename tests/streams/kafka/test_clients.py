from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ProducerClosed
from prometheus_client import CollectorRegistry

from streams.codec import DEAD_LETTER_BYTES, Rejected, decode_interaction, partition_for
from streams.kafka.clients import (
    consumer,
    dead_letter_send,
    deliver,
    group_id,
    partition_lags,
    producer,
)
from streams.kafka.topics import ensure_topics
from streams.metrics import RoleMetrics
from tests.streams.clients import make_topic, read, started
from tests.streams.logged import ARecord

pytestmark = pytest.mark.service


def test_a_ten_megabyte_message_arrives_and_becomes_a_dead_letter(kafka, make_settings):
    settings = make_settings()
    metrics = RoleMetrics(CollectorRegistry())
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
            await dead_letter_send(sender, settings, event, rejected, metrics)
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


def test_a_dead_letter_that_kafka_refuses_is_counted_and_stops_nothing(kafka, make_settings):
    settings = make_settings()
    registry = CollectorRegistry()
    metrics = RoleMetrics(registry)
    rejected = Rejected("not_json", "why")
    record = ARecord(settings.topic("interactions"), 0, 7, b"x" * 5_000, b"u")

    async def run():
        await make_topic(settings, "dead-letters", **{"max.message.bytes": "1000"})
        async with started(lambda: producer(settings)) as sender:
            await dead_letter_send(sender, settings, record, rejected, metrics)
        with pytest.raises(ProducerClosed):  # it is not Kafka that refuses: read it again later
            await dead_letter_send(sender, settings, record, rejected, metrics)

    asyncio.run(run())
    lost = registry.get_sample_value("palate_dead_letters_lost_total", {"reason": "not_json"})
    assert lost == 1.0


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
