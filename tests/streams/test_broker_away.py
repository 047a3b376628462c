from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError

from deploy.broker import Broker
from models.errors import StackError
from streams.kafka import topics
from streams.kafka.clients import (
    client_options,
    consumer,
    deliver,
    group_id,
    producer,
    start_client,
    until_answered,
)
from streams.kafka.connectivity import check_reachable, start_within
from streams.kafka.topic_follower import TopicFollower
from streams.kafka.topics import ensure_topics, ensure_topics_within
from tests.ports import free_port
from tests.streams.clients import started, until

pytestmark = pytest.mark.service

SENT_BEFORE, SENT_MEANWHILE = 50, 50


@pytest.fixture
def own_broker(needs_java, make_settings):
    """A broker that the test may kill, and its settings."""
    address = f"127.0.0.1:{free_port()}"
    settings = make_settings(kafka={"bootstrap": address, "embedded": True, "partitions": 1})
    broker = Broker(settings)
    try:
        broker.start()
        yield broker, settings
    finally:
        broker.stop()


async def send(sender, topic, first, count):
    for n in range(first, first + count):
        await deliver(sender, topic, b"%d" % n, key=b"u")


async def collect(reader, into):
    while True:
        for batch in (await reader.getmany(timeout_ms=200)).values():
            into += [record.value for record in batch]


async def committed(reader, offsets):
    """As soon as the group is together again: on a busy machine it may be joining yet."""
    while True:
        try:
            return await reader.commit(offsets)
        except CommitFailedError:
            await asyncio.sleep(0.2)


def test_clients_outlive_a_kill_of_the_broker_and_nothing_is_lost(own_broker, caplog):
    broker, settings = own_broker
    caplog.set_level(logging.INFO, "streams.kafka.clients")
    interactions = settings.topic("interactions")
    expected = [b"%d" % n for n in range(SENT_BEFORE + SENT_MEANWHILE)]
    consumed, followed = [], []

    async def run():
        await ensure_topics(settings)
        sender = await start_client(lambda: producer(settings))
        group = group_id(settings, "test")
        reader = await start_client(lambda: consumer(settings, ["interactions"], group))
        follower = TopicFollower(settings, "interactions", lambda r: followed.append(r.value))
        await follower.start()
        consuming = asyncio.create_task(collect(reader, consumed))
        await send(sender, interactions, 0, SENT_BEFORE)
        await until(lambda: len(consumed) == len(followed) == SENT_BEFORE)

        os.kill(broker.pid(), signal.SIGKILL)
        await until(lambda: not broker.running())
        sending = asyncio.create_task(send(sender, interactions, SENT_BEFORE, SENT_MEANWHILE))
        starting = asyncio.create_task(start_client(lambda: producer(settings)))
        await until(lambda: "connecting: Kafka does not answer" in caplog.text)
        await asyncio.to_thread(broker.start)

        await sending
        await until(lambda: set(consumed) == set(expected) and len(followed) == len(expected))
        await committed(reader, {TopicPartition(interactions, 0): len(expected)})
        consuming.cancel()
        for client in (await starting, sender, reader, follower):
            await client.stop()

    asyncio.run(run())
    assert followed == expected
    assert list(dict.fromkeys(consumed)) == expected  # the group may have begun again
    assert caplog.text.count("connecting: Kafka does not answer") == 1
    assert caplog.text.count("connecting: Kafka answers") == 1


def test_topics_are_made_however_long_the_broker_takes_to_answer(own_broker, monkeypatch, caplog):
    broker, settings = own_broker
    true = topics.start_client

    async def start_and_suspend(make):
        client = await true(make)
        os.kill(broker.pid(), signal.SIGSTOP)
        return client

    options = client_options(settings) | {"request_timeout_ms": 500}
    monkeypatch.setattr(topics, "client_options", lambda _: options)
    monkeypatch.setattr(topics, "start_client", start_and_suspend)

    async def run():
        making = asyncio.create_task(ensure_topics(settings))
        try:
            await until(lambda: "topics: Kafka does not answer" in caplog.text or making.done())
        finally:
            os.kill(broker.pid(), signal.SIGCONT)
        return await making

    asyncio.run(run())
    monkeypatch.undo()
    assert asyncio.run(ensure_topics(settings)) == []  # all are there


def test_offsets_are_asked_for_until_they_are_told(own_broker, caplog):
    """aiokafka's consumer gives up for good after the time of a request."""
    broker, settings = own_broker
    place = TopicPartition(settings.topic("interactions"), 0)

    async def run():
        await ensure_topics(settings)
        reader = consumer(settings, [], None, request_timeout_ms=500)
        async with started(lambda: reader):
            os.kill(broker.pid(), signal.SIGSTOP)
            asking = asyncio.create_task(
                until_answered("ends", lambda: reader.end_offsets([place]))
            )
            try:
                await until(lambda: "ends: Kafka does not answer" in caplog.text or asking.done())
            finally:
                os.kill(broker.pid(), signal.SIGCONT)
            return await asking

    assert asyncio.run(run()) == {place: 0}


def test_a_command_does_not_wait_for_ever(make_settings):
    settings = make_settings(kafka={"embedded": True})
    with pytest.raises(StackError, match=r"did not answer within 0\.2 s .*`palate up` starts it"):
        asyncio.run(start_within(settings, lambda: producer(settings), 0.2))
    with pytest.raises(StackError, match="did not answer within"):
        asyncio.run(ensure_topics_within(settings, 0.2))


def test_it_does_not_offer_to_start_a_cluster_that_is_not_ours(make_settings):
    settings = make_settings(kafka={"embedded": False})
    with pytest.raises(StackError, match="is the cluster up") as refused:
        asyncio.run(check_reachable(settings, 0.2))
    assert "palate up" not in str(refused.value)
