"""Messages as rows of an event log, for tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from models.schemas import Item, Message
from models.settings import Settings
from streams.codec import key_of, partition_for
from streams.event_log import SegmentLog
from streams.recorder.rows import Buffer, RecordClassifier

NOW = 1_300_000_000_000


@dataclass(frozen=True)
class ARecord:
    """A Kafka record."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = NOW
    headers: tuple[tuple[str, bytes], ...] = ()


def record_of(
    topic: str, partition: int, offset: int, message: Message, timestamp: int = NOW
) -> ARecord:
    """A message under its own key."""
    return ARecord(topic, partition, offset, message.to_json(), key_of(message), timestamp)


def table_of(settings: Settings, records: Iterable[ARecord]) -> pa.Table:
    """What the recorder writes of records of one partition."""
    found = list(records)
    buffer = Buffer(found[0].topic, found[0].partition, start=found[0].offset)
    for record in found:
        buffer.add(record, RecordClassifier.of(settings), now=0.0)
    return buffer.table()


def record(log: SegmentLog, settings: Settings, records: Iterable[ARecord]) -> None:
    """Append records of one partition, as the recorder does."""
    found = list(records)
    if found:
        first = found[0]
        log.append_from(first.topic, first.partition, first.offset, table_of(settings, found))


def record_items(log: SegmentLog, settings: Settings, items: Iterable[Item]) -> None:
    """Append items, each to its own partition."""
    homes: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        homes[partition_for(key_of(item), settings.kafka.partitions)].append(item)
    for partition, found in homes.items():
        after = log.next_offset("items", partition)
        rows = (record_of("items", partition, after + n, item) for n, item in enumerate(found))
        record(log, settings, rows)
