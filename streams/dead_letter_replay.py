"""Dead letters: what was refused, read back; and its way in again, corrected or as it was.

A correction keeps the event's id, so sending it twice is harmless; a list of what was sent
keeps it from happening at every replay all the same.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from models.errors import EventLogError, ImportFailed
from models.schemas import TOPIC_SCHEMAS, Interaction, Message
from models.settings import Settings
from streams.codec import Rejected, Removal, decode, key_of, removal
from streams.event_log import LOGGED_TOPICS, SegmentLog
from streams.event_log.columns import INVALID
from streams.kafka.clients import consumer, deliver
from streams.kafka.connectivity import start_within
from streams.kafka.read_at import read_whole
from streams.kafka.topics import existing_partitions

PREFIX: Final = "palate-"
REPLAYED_HEADER: Final = "palate-replayed"  # names the record that a replayed one stands for
# Reasons that a replay cures: later, under the right key, or by a role that was mended.
PASSING: Final = ("future", "no_time", "wrong_key", "failed")
_DIGITS: Final = 18  # of a number in a header; whoever writes to the topic may put anything there


class RecordOrigin(NamedTuple):
    """Where the refused record stood; `topic` without the deployment's prefix."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record, as topic `dead-letters` or the event log has it."""

    origin: RecordOrigin
    reason: str
    detail: str
    kafka_time: int  # of the refused record, epoch ms
    size: int  # bytes of its whole value
    sha256: str | None  # of its whole value; None if `value` is all of it
    key: bytes | None
    value: bytes | None  # at least the beginning; None: the record had no value

    @property
    def whole(self) -> bool:
        """Whether `value` is all that was sent."""
        return len(self.value or b"") == self.size


class ReplayResult(NamedTuple):
    """What became of one record to replay."""

    origin: RecordOrigin
    result: str  # sent, already sent or refused
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Correction:
    """A value to send in place of what stood at `origin`."""

    origin: RecordOrigin
    value: bytes | None  # None: what stands under `key` is to be removed
    key: bytes | None = None  # of the original, asked only where there is no value


# Reading.


async def from_topic(
    settings: Settings, within_s: float | None = None
) -> AsyncIterator[DeadLetter]:
    """The dead letters that the topic holds now, each origin once, by partition and offset.

    Raises StackError if Kafka does not answer `within_s` (None: waits).
    """
    reader = await start_within(settings, lambda: consumer(settings, (), None), within_s)
    seen: set[RecordOrigin] = set()  # a tracker that was killed may have sent one twice
    try:
        for place in await _places(settings, reader):
            async for record in read_whole(reader, place):
                found = parse(record, settings.kafka.prefix)
                if found.origin not in seen:
                    seen.add(found.origin)
                    yield found
    finally:
        await reader.stop()


async def _places(settings: Settings, reader: AIOKafkaConsumer) -> list[TopicPartition]:
    topic = settings.topic("dead-letters")
    return await existing_partitions(settings, topic) if topic in await reader.topics() else []


def parse(record: ConsumerRecord, prefix: str) -> DeadLetter:
    """A record of topic `dead-letters`, by its headers; one without them is its own origin."""
    told = {
        name.removeprefix(PREFIX): (value or b"").decode(errors="replace")
        for name, value in record.headers
        if name.startswith(PREFIX)
    }
    size = len(record.value or b"")
    topic = told.get("topic", record.topic)
    return DeadLetter(
        RecordOrigin(
            topic.removeprefix(prefix),
            _number(told.get("partition"), record.partition),
            _number(told.get("offset"), record.offset),
        ),
        told.get("reason", "unknown"),
        told.get("detail", ""),
        _number(told.get("timestamp"), record.timestamp),
        _number(told.get("size"), size),
        told.get("sha256"),
        record.key,
        record.value,
    )


def _number(text: str | None, otherwise: int) -> int:
    if text is None or not text.isdecimal() or len(text) > _DIGITS:
        return otherwise
    return int(text)


def from_log(log: SegmentLog) -> Iterator[DeadLetter]:
    """The invalid rows of the event log, which outlive the topic's retention."""
    columns = ["offset", "kafka_time", "status", "reason", "detail", "size", "sha256"]
    for topic in LOGGED_TOPICS:
        for partition in log.partitions(topic):
            for row in log.rows(topic, partition, columns=[*columns, "key", "value"]):
                if row["status"] == INVALID:
                    yield DeadLetter(
                        RecordOrigin(topic, partition, row["offset"]),
                        row["reason"] or "unknown",
                        row["detail"] or "",
                        row["kafka_time"],
                        row["size"] or 0,
                        row["sha256"],
                        row["key"],
                        row["value"],
                    )


# Correcting.


def read_corrections(path: Path) -> Iterator[Correction]:
    """Lines {"topic", "partition", "offset", "value"}, where `value` is the corrected message.

    Raises ImportFailed naming the line that is none.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _correction(line, f"{path}, line {number}")


def _correction(line: bytes, where: str) -> Correction:
    try:
        fields: dict[str, Any] = orjson.loads(line)
        origin = RecordOrigin(str(fields["topic"]), int(fields["partition"]), int(fields["offset"]))
        value = fields["value"]
    except (ValueError, KeyError, TypeError) as error:
        raise ImportFailed(
            f"{where}: not a correction ({type(error).__name__}: {error}); a line is "
            '{"topic": …, "partition": …, "offset": …, "value": {…}}'
        ) from error
    if origin.topic not in TOPIC_SCHEMAS:
        raise ImportFailed(f"{where}: topic {origin.topic!r} is none of {', '.join(TOPIC_SCHEMAS)}")
    return Correction(origin, value.encode() if isinstance(value, str) else orjson.dumps(value))


def as_it_was(letter: DeadLetter) -> Correction | ReplayResult:
    """The original bytes to be sent again, or why they cannot be."""
    if not letter.whole:
        size = f"only {len(letter.value or b'')} of {letter.size} bytes were kept"
        return ReplayResult(letter.origin, "refused", size)
    if letter.origin.topic not in TOPIC_SCHEMAS:
        return ReplayResult(letter.origin, "refused", f"no topic {letter.origin.topic!r}")
    if letter.sha256 and hashlib.sha256(letter.value or b"").hexdigest() != letter.sha256:
        return ReplayResult(letter.origin, "refused", "the bytes are not those of the sha256")
    key = letter.key if letter.value is None else None
    return Correction(letter.origin, letter.value, key)


def accepted(
    correction: Correction, now_ms: int, future_tolerance_ms: int
) -> Message | Removal | Rejected:
    """What the roles would read from a record sent now under its own key."""
    schema = TOPIC_SCHEMAS[correction.origin.topic]
    if correction.value is None:
        return removal(correction.key, schema)
    found = decode(correction.value, schema)
    if isinstance(found, Interaction) and found.timestamp - now_ms > future_tolerance_ms:
        ahead = (found.timestamp - now_ms) / 1000
        return Rejected("future", f"event time is still {ahead:.0f} s ahead")
    return found


# Sending.


class ReplayedList:
    """Origins whose replay the broker has acknowledged, in a file of one line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._origins = set(self._read())

    def __contains__(self, origin: RecordOrigin) -> bool:
        return origin in self._origins

    def add(self, origin: RecordOrigin) -> None:
        """Note it durably enough: a line lost in a crash costs one harmless repetition."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = orjson.dumps(origin._asdict() | {"at": time.time_ns() // 1_000_000})
        with self.path.open("ab") as file:
            file.write(line + b"\n")
        self._origins.add(origin)

    def _read(self) -> Iterator[RecordOrigin]:
        if not self.path.exists():
            return
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                fields = orjson.loads(line)
                yield RecordOrigin(fields["topic"], fields["partition"], fields["offset"])
            except (ValueError, KeyError) as error:
                raise EventLogError(
                    f"{self.path}, line {number}: not what was written there; delete the line "
                    "(the worst that follows is that one event is sent again)"
                ) from error


def replayed_list(settings: Settings) -> ReplayedList:
    """This deployment's list."""
    return ReplayedList(settings.data_dir / "dead-letters" / "replayed.jsonl")


async def replay(
    corrections: Iterable[Correction | ReplayResult],
    settings: Settings,
    producer: AIOKafkaProducer,
    replayed: ReplayedList,
) -> AsyncIterator[ReplayResult]:
    """Send each correction that would be accepted and was not sent before."""
    tolerance = int(settings.windows.future_tolerance_s * 1000)
    for correction in corrections:
        if isinstance(correction, ReplayResult):
            yield correction
            continue
        origin = correction.origin
        if origin in replayed:
            yield ReplayResult(origin, "already sent")
            continue
        message = accepted(correction, time.time_ns() // 1_000_000, tolerance)
        if isinstance(message, Rejected):
            yield ReplayResult(origin, "refused", f"{message.reason}: {message.detail}")
            continue
        key = message.id.encode() if isinstance(message, Removal) else key_of(message)
        # 1. produce  2. the broker acknowledges  3. mark as replayed
        await _send(correction, key, settings, producer)
        replayed.add(origin)
        yield ReplayResult(origin, "sent")


async def _send(
    correction: Correction, key: bytes, settings: Settings, producer: AIOKafkaProducer
) -> None:
    origin = correction.origin
    header = f"{origin.topic}/{origin.partition}/{origin.offset}".encode()
    topic = settings.topic(origin.topic)
    headers = [(REPLAYED_HEADER, header)]
    await deliver(producer, topic, correction.value, key=key, headers=headers)


def chosen(
    letters: Iterable[DeadLetter], reasons: Collection[str], topics: Collection[str]
) -> Iterator[DeadLetter]:
    """Those with one of the reasons and from one of the topics; empty: any."""
    for letter in letters:
        if (not reasons or letter.reason in reasons) and (
            not topics or letter.origin.topic in topics
        ):
            yield letter
