"""Started clients, records and topics, for tests on a real broker."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.kafka import client_options, full_name, start_client
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
    await admin.create_topics([NewTopic(full_name(settings, name), 2, 1, topic_configs=config)])
    await admin.close()
