"""Started clients, records and topics, for tests on a real broker."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.kafka.clients import client_options, start_client
from streams.kafka.topics import ensure_topics
from tests.patience import Deadline


@asynccontextmanager
async def started(make):
    client = await start_client(make)
    try:
        yield client
    finally:
        await client.stop()


async def until(condition):
    deadline = Deadline()
    while not condition():
        assert not deadline.over(), "condition not reached in time"
        await asyncio.sleep(0.02)


async def read(reader, count):
    records = []
    while len(records) < count:
        for batch in (await reader.getmany(timeout_ms=200)).values():
            records += batch
    return records


async def make_topic(settings, name, **config):
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    await admin.create_topics([NewTopic(settings.topic(name), 2, 1, topic_configs=config)])
    await admin.close()


async def delete_topic(settings, name):
    topic = settings.topic(name)
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    try:
        await admin.delete_topics([topic])
        while topic in await admin.list_topics():
            await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def make_again(settings, name):
    """Delete a topic; Kafka has another one of the same name afterwards."""
    await delete_topic(settings, name)
    await ensure_topics(settings)
