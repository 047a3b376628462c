"""The changelog topic of the tracker's table `histories`, read and written from outside.

Only while no tracker runs may it be written: `refuse_if_running` asks the broker.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain, islice
from typing import Final, TypeVar

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from models.errors import TopicError
from models.settings import Settings
from streams.event_log import SegmentLog
from streams.kafka.clients import (
    client_options,
    consumer,
    group_id,
    partition_producer,
    start_client,
)
from streams.kafka.connectivity import start_within
from streams.kafka.read_at import read_whole
from streams.kafka.topics import changelog_topic
from streams.rebuild import RebuiltPartition

READ: Final = ("interactions", "profile-edits", "profiles")  # what the tracker reads in its group
_IDLE: Final = ("Empty", "Dead")
_AT_ONCE: Final = 1_000  # records of a transaction
T = TypeVar("T")


async def refuse_if_running(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    """Raise TopicError while a tracker is a member of its group."""
    group = group_id(settings, "tracker")
    (described,) = await admin.describe_consumer_groups([group])
    state = described.groups[0][2]
    if state not in _IDLE:
        raise TopicError(
            f"consumer group {group} is {state}: a tracker is running (or died less than "
            f"{settings.kafka.session_timeout_s:.0f} s ago); run `palate down` first"
        )


async def refuse_if_behind(admin: AIOKafkaAdminClient, settings: Settings, log: SegmentLog) -> None:
    """Raise TopicError if the tracker has read what the log does not hold."""
    committed = await admin.list_consumer_group_offsets(group_id(settings, "tracker"))
    for topic in READ:
        for partition in range(settings.kafka.partitions):
            found = committed.get(TopicPartition(settings.topic(topic), partition))
            logged = log.next_offset(topic, partition)
            if found is not None and found.offset > logged:
                raise TopicError(
                    f"topic {topic} partition {partition}: the log ends before offset {logged}, "
                    f"the tracker had read up to {found.offset - 1}; start the recorder, let it "
                    "catch up, and rebuild again"
                )


async def read_changelog(
    settings: Settings, partition: int, within_s: float | None = None
) -> dict[bytes, bytes]:
    """The table's records of one partition; empty if there is no changelog yet.

    Raises StackError if Kafka does not answer `within_s` (None: waits).
    """
    records: dict[bytes, bytes] = {}
    async for key, value in _changes(settings, partition, within_s):
        if value is None:
            records.pop(key, None)
        else:
            records[key] = value
    return records


async def _changes(
    settings: Settings, partition: int, within_s: float | None
) -> AsyncIterator[tuple[bytes, bytes | None]]:
    reader = await start_within(settings, lambda: consumer(settings, (), None), within_s)
    place = TopicPartition(changelog_topic(settings), partition)
    try:
        if place.topic not in await reader.topics():
            return
        async for record in read_whole(reader, place):
            yield record.key, record.value
    finally:
        await reader.stop()


async def write_state(settings: Settings, rebuilt: RebuiltPartition) -> tuple[int, int]:
    """Make the changelog of one partition say what `rebuilt` says.

    Writes what differs and deletes what is not in it. A tracker that had owned the partition and
    was suspended writes nothing from now on. Returns (records written, records deleted). May be
    repeated after a crash.
    """
    partition = rebuilt.partition
    owner = await start_client(lambda: partition_producer(settings, partition))
    try:
        known = await read_changelog(settings, partition)
        written = [
            (key, value) for key, value in rebuilt.records() if known.pop(key, None) != value
        ]
        for changes in _batches(chain(written, ((key, None) for key in known))):
            await _commit(owner, changelog_topic(settings), partition, changes)
    finally:
        await owner.stop()
    return len(written), len(known)


def _batches(records: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(records)
    while batch := list(islice(remaining, _AT_ONCE)):
        yield batch


async def _commit(
    owner: AIOKafkaProducer,
    topic: str,
    partition: int,
    changes: Iterable[tuple[bytes, bytes | None]],
) -> None:
    async with owner.transaction():
        sent = [await owner.send(topic, value, key, partition=partition) for key, value in changes]
        await asyncio.gather(*sent)


async def admin_client(settings: Settings, within_s: float | None = None) -> AIOKafkaAdminClient:
    """A started admin client. Raises StackError if Kafka does not answer `within_s`."""
    return await start_within(
        settings, lambda: AIOKafkaAdminClient(**client_options(settings)), within_s
    )


def reset_local_state(settings: Settings) -> None:
    """Delete this machine's RocksDB folders; trackers recover from the changelog."""
    folder = settings.data_dir / "state"
    if folder.exists():
        shutil.rmtree(folder)
