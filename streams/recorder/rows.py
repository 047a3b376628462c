"""Kafka records → rows of the event log, columnar; pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import orjson
import pyarrow as pa

from models.schemas import TOPIC_SCHEMAS, Message
from models.settings import Settings
from streams.codec import (
    DEAD_LETTER_BYTES,
    Misrouted,
    Record,
    Rejected,
    decode,
    decode_for_user,
    decode_interaction,
)
from streams.event_log.columns import FORWARDED, INVALID, OK, SCHEMAS, TOMBSTONE, TYPED

ROW_BYTES: Final = 500  # what a row takes in memory beside its value

# Stands in for the message of a row that has none: every typed column is null.
_NOTHING: Final = {
    topic: SimpleNamespace(**dict.fromkeys(columns)) for topic, columns in TYPED.items()
}


class Verdict(NamedTuple):
    """What a record is, as `status`, with the message if it is 'ok'."""

    status: str
    message: Any
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides the status of records, by the codec that the tracker uses."""

    partitions: int
    future_tolerance_ms: int

    @classmethod
    def of(cls, settings: Settings) -> Judge:
        """As the settings say."""
        return cls(settings.kafka.partitions, int(settings.windows.future_tolerance_s * 1000))

    def verdict(self, topic: str, record: Record) -> Verdict:
        """`topic` without prefix."""
        found: Message | Misrouted | Rejected
        if topic == "interactions":
            found = decode_interaction(record, self.partitions, self.future_tolerance_ms)
        elif record.value is None:
            return Verdict(TOMBSTONE, _NOTHING[topic])
        elif "user_id" in TOPIC_SCHEMAS[topic].model_fields:
            found = decode_for_user(record, TOPIC_SCHEMAS[topic], self.partitions)
        else:
            found = decode(record.value, TOPIC_SCHEMAS[topic])
        if isinstance(found, Rejected):
            return Verdict(INVALID, _NOTHING[topic], found.reason, found.detail)
        if isinstance(found, Misrouted):
            return Verdict(FORWARDED, _NOTHING[topic])
        return Verdict(OK, found)


@dataclass(slots=True)
class Buffer:
    """Rows of one partition that wait for their segment; complete from `start` to `next`."""

    topic: str  # without prefix
    partition: int
    start: int
    next: int = field(init=False)
    since: float = 0.0  # monotonic time of the first row
    bytes: int = 0
    _records: list[Record] = field(default_factory=list)
    _verdicts: list[Verdict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.next = self.start

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record, judge: Judge, now: float) -> None:
        """Take the record at `next` or, after missing offsets, later; `now` is monotonic time."""
        verdict = judge.verdict(self.topic, record)
        if not self._records:
            self.since = now
        self._records.append(record)
        self._verdicts.append(verdict)
        sent_along = sum(len(name) + len(value or b"") for name, value in record.headers)
        self.bytes += ROW_BYTES + len(record.key or b"") + len(record.value or b"") + sent_along
        self.next = record.offset + 1

    def take(self) -> Buffer:
        """What is held, as a buffer of its own; this one goes on empty from `next`."""
        taken = Buffer(self.topic, self.partition, self.start)
        taken._records, taken._verdicts = self._records, self._verdicts
        taken.next, taken.bytes, taken.since = self.next, self.bytes, self.since
        self.start, self.bytes, self._records, self._verdicts = self.next, 0, [], []
        return taken

    def statuses(self, newest: int) -> Counter[str]:
        """How many of the newest rows have each status."""
        return Counter(verdict.status for verdict in self._verdicts[-newest:])

    def table(self) -> pa.Table:
        """The rows, with the columns of the topic's segments."""
        records, verdicts = self._records, self._verdicts
        values = [kept_value(r.value, v.status) for r, v in zip(records, verdicts, strict=True)]
        raw: list[Sequence[Any]] = [
            [record.offset for record in records],
            [self.partition] * len(records),
            [record.timestamp for record in records],
            [record.key for record in records],
            values,
            [len(record.value or b"") for record in records],
            [_digest(r.value, kept) for r, kept in zip(records, values, strict=True)],
            [encode_headers(record.headers) for record in records],
            [verdict.status for verdict in verdicts],
            [verdict.reason for verdict in verdicts],
            [verdict.detail for verdict in verdicts],
        ]
        messages = [verdict.message for verdict in verdicts]
        typed = [[getattr(message, name) for message in messages] for name in TYPED[self.topic]]
        schema = SCHEMAS[self.topic]
        columns = [
            pa.array(column, kind)
            for column, kind in zip((*raw, *typed), schema.types, strict=True)
        ]
        return pa.Table.from_arrays(columns, schema=schema)


def kept_value(value: bytes | None, status: str) -> bytes | None:
    """The value, whole unless it is invalid and long: replay decodes what is accepted."""
    return value if value is None or status != INVALID else value[:DEAD_LETTER_BYTES]


def _digest(value: bytes | None, kept: bytes | None) -> str | None:
    """sha256 of the whole value where only its beginning is kept."""
    if value is None or kept is None or len(kept) == len(value):
        return None
    return hashlib.sha256(value).hexdigest()


def encode_headers(headers: Sequence[tuple[str, bytes]]) -> str | None:
    """JSON [[name, value], …]: text if it is UTF-8, else {"hex": "…"}; None without headers."""
    if not headers:
        return None
    return orjson.dumps([[name, _header_value(value)] for name, value in headers]).decode()


def _header_value(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return {"hex": bytes(value or b"").hex()}
