"""The changelog topic of the tracker's table `histories`, read and written from outside.

Only while no tracker runs may it be written: `refuse_if_running` asks the broker.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from models.errors import TopicError
from models.settings import Settings
from streams.event_log import SegmentLog
from streams.kafka import client_options, consumer, group_id
from streams.reach import start_within
from streams.rebuild import RebuiltPartition

TABLE: Final = "histories"
READ: Final = ("interactions", "profile-edits", "profiles")  # what the tracker reads in its group
_IDLE: Final = ("Empty", "Dead")
_POLL_MS: Final = 500
_AT_ONCE: Final = 1_000  # records sent before waiting for their acknowledgements


def changelog_topic(settings: Settings) -> str:
    """Its full name, as Faust makes it of app and table."""
    return f"{group_id(settings, 'tracker')}-{TABLE}-changelog"


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
        reader.assign([place])
        await reader.seek_to_beginning(place)
        end = (await reader.end_offsets([place]))[place]
        while await reader.position(place) < end:
            for records in (await reader.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    yield record.key, record.value
    finally:
        await reader.stop()


async def write_state(
    settings: Settings, producer: AIOKafkaProducer, rebuilt: RebuiltPartition
) -> tuple[int, int]:
    """Make the changelog of one partition say what `rebuilt` says.

    Writes what differs, deletes what is not in it, and awaits the acknowledgements. Returns
    (records written, records deleted). May be repeated after a crash.
    """
    known = await read_changelog(settings, rebuilt.partition)
    topic, written = changelog_topic(settings), 0
    sending = _Sending(producer, topic, rebuilt.partition)
    for key, value in rebuilt.records():
        if known.pop(key, None) != value:
            await sending.send(key, value)
            written += 1
    for key in known:
        await sending.send(key, None)
    await sending.finish()
    return written, len(known)


class _Sending:
    """Sends records of one partition in order, waiting now and then."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partition: int) -> None:
        self._producer, self._topic, self._partition = producer, topic, partition
        self._waiting: list[Awaitable[object]] = []

    async def send(self, key: bytes, value: bytes | None) -> None:
        sent = await self._producer.send(self._topic, value, key, partition=self._partition)
        self._waiting.append(sent)
        if len(self._waiting) >= _AT_ONCE:
            await self.finish()

    async def finish(self) -> None:
        for sent in self._waiting:
            await sent
        self._waiting.clear()


async def ensure_changelog(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    """Create the changelog if no tracker ever has."""
    topic = changelog_topic(settings)
    if topic in await admin.list_topics():
        return
    kafka = settings.kafka
    config = {"cleanup.policy": "compact"}
    await admin.create_topics(
        [NewTopic(topic, kafka.partitions, kafka.replication, topic_configs=config)]
    )


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
