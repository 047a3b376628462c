"""Bytes ⇄ schema. Decoding is pure, so that tracker, recorder and replay agree on every record.

Bad input is a return value: `Rejected` says why, `Misrouted` where the record belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol, TypeVar

from aiokafka.partitioner import murmur2
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from models.schemas import (
    EARLIEST_MS,
    LATEST_MS,
    MAX_ID_CHARS,
    Interaction,
    Item,
    Message,
    Profile,
    ProfileEdit,
    Recommendation,
    ReleaseAnnouncement,
)

MAX_VALUE_BYTES: Final = 1_000_000
MAX_PROBLEMS: Final = 1_000  # of one value that are looked at for words; schemas keep to fewer
DEAD_LETTER_BYTES: Final = 256 * 1024
KEY_BYTES: Final = 4 * MAX_ID_CHARS  # of an id in UTF-8; a longer key names nobody
HEADER_BYTES: Final = 32 * 1024  # of names and values that are sent on with an event
SMALLEST_LIMIT: Final = 2**20  # bytes that every cluster takes; what Palate sends on fits into it
FORWARDED_HEADER: Final = "palate-forwarded"
HEADERS_LEFT_OUT: Final = "palate-headers-left-out"  # how many were too long to be sent on

_OF_JSON: Final = {  # kind of error → words for producers; pydantic's are about Python's types
    "tuple_type": "Input should be a valid array",
    "model_type": "Input should be an object",
    "dict_type": "Input should be an object",
}

M = TypeVar("M", bound=Message)
Headers = Sequence[tuple[str, bytes]]


class Record(Protocol):
    """What codec needs of a Kafka record (aiokafka's ConsumerRecord and replay rows fit)."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a record cannot be used: one of these reasons, and one line of detail.

    empty      no value where one is needed
    too_large  the value has more than MAX_VALUE_BYTES
    not_json   the value is not a UTF-8 JSON object
    invalid    a field is missing, or has the wrong type or an absurd value
    future     the event time is too far after the record's own Kafka time
    no_time    the record has no Kafka time to measure lateness, or a wish to be forgotten, by
    wrong_key  key or partition is not that of the id (an interaction: after it was sent on)
    failed     valid, but the role failed with it: a defect, with a traceback in the role's log
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A record without a value: what stands under this id is to go."""

    id: str


@dataclass(frozen=True, slots=True)
class Misrouted:
    """A valid interaction under a wrong key or partition; to be sent on once to `partition`."""

    interaction: Interaction
    partition: int


@lru_cache(maxsize=200_000)
def partition_for(key: bytes, partitions: int) -> int:
    """The partition that Kafka's own clients choose for `key` (murmur2)."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def decode(value: bytes | None, schema: type[M]) -> M | Rejected:
    """One value of any topic → its schema, or why not."""
    if not value:
        return Rejected("empty", "the record has no value")
    if len(value) > MAX_VALUE_BYTES:
        return Rejected("too_large", f"{len(value)} bytes; at most {MAX_VALUE_BYTES} are read")
    try:
        found = from_json(value)
    except (ValueError, RecursionError) as error:
        return Rejected("not_json", f"Invalid JSON: {error}"[:200])
    if not isinstance(found, dict):
        return Rejected("not_json", _OF_JSON["model_type"])
    try:  # not model_validate_json, whose error holds a copy of the value for each missing field
        return schema.model_validate(found)
    except ValidationError as error:
        return _rejection(error)


def _rejection(error: ValidationError) -> Rejected:
    if error.error_count() > MAX_PROBLEMS:
        return Rejected("invalid", f"{error.error_count()} values are wrong")
    problems = error.errors(include_url=False, include_input=False)
    lines = (f"{'.'.join(map(str, p['loc'])) or 'value'}: {_said(p)}" for p in problems)
    return Rejected("invalid", "; ".join(lines)[:500])


def _said(problem: ErrorDetails) -> str:
    return _OF_JSON.get(problem["type"], problem["msg"])


def decode_interaction(
    record: Record, partitions: int, future_tolerance_ms: int
) -> Interaction | Misrouted | Rejected:
    """One record of topic `interactions` → what to do with it.

    `record.timestamp` is Kafka's time of the record, the only clock used.
    """
    decoded = decode(record.value, Interaction)
    if isinstance(decoded, Rejected):
        return decoded
    if not is_time(record.timestamp):
        return Rejected("no_time", _no_time(record.timestamp))
    ahead = decoded.timestamp - record.timestamp
    if ahead > future_tolerance_ms:
        return Rejected("future", f"event time is {ahead / 1000:.0f} s after the record's time")
    key = decoded.user_id.encode()
    home = partition_for(key, partitions)
    if record.partition != home or record.key != key:
        if any(name == FORWARDED_HEADER for name, _ in record.headers):
            found = (record.key or b"")[:KEY_BYTES]
            return Rejected("wrong_key", f"key {found!r:.80} for user {decoded.user_id:.80}")
        return Misrouted(decoded, home)
    return decoded


def is_time(kafka_time: int | None) -> bool:
    """Whether Kafka's time of a record can be one."""
    return kafka_time is not None and EARLIEST_MS <= kafka_time < LATEST_MS


def _no_time(kafka_time: int | None) -> str:
    """Kafka's -1, or what a producer with a wrong clock has given."""
    given = "no time" if kafka_time in (None, -1) else f"a time outside 1990..2100 ({kafka_time})"
    return f"the record has {given}; give its topic message.timestamp.type=LogAppendTime"


# Topics whose records without a value take away what stands under their key.
_REMOVABLE: Final = (Item, Profile, Recommendation, ReleaseAnnouncement)
_UNDER_THEIR_ID: Final = frozenset({"serving", "retired"})


def key_of(message: Message) -> bytes:
    """The record key that the topic of a message asks for."""
    if isinstance(message, ReleaseAnnouncement):
        return _announcement_key(message)
    if isinstance(message, Item):
        return message.item_id.encode()
    user_id: str = message.user_id  # type: ignore[attr-defined]
    return user_id.encode()


def _announcement_key(step: ReleaseAnnouncement) -> bytes:
    """Key of a step's record, chosen so that a compacted topic tells the same as the whole one.

    Were all steps under one key, a profiler that starts late and reports the serving release
    ready would, in time, have compaction remove the record that says that it serves.
    """
    if step.status in _UNDER_THEIR_ID:
        return step.release.encode()
    return f"{step.release}/{step.status}/{step.by}".encode()


def decode_keyed(record: Record, schema: type[M], partitions: int) -> M | Removal | Rejected:
    """One record of a topic other than `interactions`, where its key belongs.

    Under another key or in another partition it would reach a worker that does not keep the
    user, stand in a compacted topic under another name, and come before or after the other
    records of its key by chance: a key has one order, that of its own partition. So it is
    refused, a removal too; every reader decides that alike, from the record alone.
    `partitions` is kafka.partitions; topic `releases` has one.
    """
    decoded: M | Removal | Rejected
    if record.value is None:
        decoded = removal(record.key, schema)
    else:
        decoded = _under_its_key(record, schema)
    if isinstance(decoded, Rejected):
        return decoded
    count = 1 if issubclass(schema, ReleaseAnnouncement) else partitions
    home = partition_for(record.key or b"", count)
    if record.partition != home:
        return Rejected(
            "wrong_key",
            f"partition {record.partition}, but the key's is {home}: the producer must choose "
            "partitions as Kafka's own clients do (librdkafka: partitioner=murmur2_random)",
        )
    if schema is ProfileEdit and not is_time(record.timestamp):  # what is forgotten goes by it
        return Rejected("no_time", _no_time(record.timestamp))
    return decoded


def removal(key: bytes | None, schema: type[Message]) -> Removal | Rejected:
    """What a record without a value asks for, if its topic knows removals."""
    if not issubclass(schema, _REMOVABLE):
        return Rejected("empty", "the record has no value")
    found = id_of(key)
    return found if isinstance(found, Rejected) else Removal(found)


def _under_its_key(record: Record, schema: type[M]) -> M | Rejected:
    decoded = decode(record.value, schema)
    if isinstance(decoded, Rejected) or record.key == key_of(decoded):
        return decoded
    found = (record.key or b"")[:KEY_BYTES]
    return Rejected("wrong_key", f"key {found!r:.80}, but the value's is {key_of(decoded)!r:.80}")


def id_of(key: bytes | None) -> str | Rejected:
    """The id that a key names; a record without a value has no other."""
    if not key:
        return Rejected("wrong_key", "the record has no key")
    if len(key) > KEY_BYTES:
        return Rejected("wrong_key", f"key of {len(key)} bytes; no id has more than {KEY_BYTES}")
    try:
        found = key.decode()
    except UnicodeDecodeError:
        return Rejected("wrong_key", f"key {key!r:.80} is not UTF-8")
    if len(found) > MAX_ID_CHARS or "\x00" in found:
        return Rejected("wrong_key", f"key {key!r:.80} is no id: too long, or with a null byte")
    return found


def forwarded_headers(headers: Headers) -> list[tuple[str, bytes]]:
    """Headers of an event that is sent on: its own, as long as Kafka is sure to take them."""
    kept, room = [], HEADER_BYTES
    for name, value in headers:
        size = len(name.encode()) + len(value or b"")
        if size <= room:
            kept.append((name, value))
            room -= size
    left_out = len(headers) - len(kept)
    if left_out:
        kept.append((HEADERS_LEFT_OUT, str(left_out).encode()))
    return [*kept, (FORWARDED_HEADER, b"1")]
