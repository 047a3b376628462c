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
    Removal,
    decode_interaction,
    decode_keyed,
)
from streams.event_log.columns import FORWARDED, INVALID, OK, RAW_FIELDS, SCHEMAS, TOMBSTONE, TYPED
from streams.last_resort import attempted

_UNFIT: Final = (pa.ArrowException, ValueError, TypeError, OverflowError)
ROW_BYTES: Final = 500  # what a row takes in memory beside its value

# Stands in for the message of a row that has none: every typed column is null.
_NOTHING: Final = {
    topic: SimpleNamespace(**dict.fromkeys(columns)) for topic, columns in TYPED.items()
}


class RecordStatus(NamedTuple):
    """What a record is, as `status`, with the message if it is 'ok'."""

    status: str
    message: Any
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class RecordClassifier:
    """Decides the status of records, by the codec that the tracker uses."""

    partitions: int
    future_tolerance_ms: int

    @classmethod
    def of(cls, settings: Settings) -> RecordClassifier:
        """As the settings say."""
        return cls(settings.kafka.partitions, int(settings.windows.future_tolerance_s * 1000))

    def verdict(self, topic: str, record: Record) -> RecordStatus:
        """`topic` without prefix."""
        found = attempted(record, lambda: self._read(topic, record))
        if isinstance(found, Rejected):
            return _invalid(topic, found)
        if isinstance(found, Misrouted):
            return RecordStatus(FORWARDED, _NOTHING[topic])
        if isinstance(found, Removal):
            return RecordStatus(TOMBSTONE, _NOTHING[topic])
        return RecordStatus(OK, found)

    def _read(self, topic: str, record: Record) -> Message | Misrouted | Removal | Rejected:
        if topic == "interactions":
            return decode_interaction(record, self.partitions, self.future_tolerance_ms)
        return decode_keyed(record, TOPIC_SCHEMAS[topic], self.partitions)


def _invalid(topic: str, why: Rejected) -> RecordStatus:
    return RecordStatus(INVALID, _NOTHING[topic], why.reason, why.detail)


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
    _verdicts: list[RecordStatus] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.next = self.start

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record, classifier: RecordClassifier, now: float) -> None:
        """Take the record at `next` or, after missing offsets, later; `now` is monotonic time."""
        verdict = classifier.verdict(self.topic, record)
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

    def failed(self, newest: int) -> int:
        """How many of the newest rows are records with which the recorder failed."""
        return sum(verdict.reason == "failed" for verdict in self._verdicts[-newest:])

    def table(self) -> pa.Table:
        """The rows, with the columns of the topic's segments."""
        typed = self._typed_columns()
        schema = SCHEMAS[self.topic]
        raw = zip(self._raw_columns(), RAW_FIELDS, strict=True)
        columns = [*(pa.array(column, field.type) for column, field in raw), *typed]
        return pa.Table.from_arrays(columns, schema=schema)

    def _typed_columns(self) -> list[pa.Array]:
        """The fields of the messages; a message that does not fit its columns is none."""
        try:
            return _typed(self.topic, self._verdicts)
        except _UNFIT:
            pairs = zip(self._records, self._verdicts, strict=True)
            self._verdicts = [self._fitting(record, verdict) for record, verdict in pairs]
            return _typed(self.topic, self._verdicts)

    def _fitting(self, record: Record, verdict: RecordStatus) -> RecordStatus:
        found = attempted(record, lambda: _typed(self.topic, [verdict]))
        return _invalid(self.topic, found) if isinstance(found, Rejected) else verdict

    def _raw_columns(self) -> list[Sequence[Any]]:
        records, verdicts = self._records, self._verdicts
        values = [kept_value(r.value, v.status) for r, v in zip(records, verdicts, strict=True)]
        return [
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


def _typed(topic: str, verdicts: Sequence[RecordStatus]) -> list[pa.Array]:
    return [
        pa.array([getattr(verdict.message, name) for verdict in verdicts], kind)
        for name, (_, kind) in TYPED[topic].items()
    ]


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
