"""Bytes ⇄ schema. Decoding is pure, so that tracker, recorder and replay agree on every record.

Bad input is a return value: `Rejected` says why, `Misrouted` where the record belongs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, TypeVar

from aiokafka.partitioner import murmur2
from pydantic import ValidationError

from models.schemas import MAX_ID_CHARS, Interaction, Message

MAX_VALUE_BYTES: Final = 1_000_000
DEAD_LETTER_BYTES: Final = 256 * 1024
KEY_BYTES: Final = 4 * MAX_ID_CHARS  # of an id in UTF-8; a longer key names nobody
HEADER_BYTES: Final = 64 * 1024  # of names and values that are sent on with an event
FORWARDED_HEADER: Final = "palate-forwarded"
HEADERS_LEFT_OUT: Final = "palate-headers-left-out"  # how many were too long to be sent on

REASONS: Final = {
    "empty": "no value where one is needed",
    "too_large": f"value over {MAX_VALUE_BYTES} bytes",
    "not_json": "value is not a UTF-8 JSON object",
    "invalid": "a field is missing or has the wrong type or an absurd value",
    "future": "event time too far after the record's own Kafka time",
    "wrong_key": "key is no id, or differs from the value's id again after it was sent on once",
    "failed": "valid, but the role failed with it: a defect, with its traceback in the role's log",
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
    """Why a record cannot be used: a key of REASONS and one line of detail."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Misrouted:
    """A valid interaction under a wrong key or partition; to be sent on once to `partition`."""

    interaction: Interaction
    partition: int


@lru_cache(maxsize=200_000)
def partition_for(key: bytes, partitions: int) -> int:
    """The partition that Kafka's own clients choose for `key` (murmur2)."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


@lru_cache(maxsize=200_000)
def _partition_of_user(user_id: str, partitions: int) -> int:
    return partition_for(user_id.encode(), partitions)


def decode(value: bytes | None, schema: type[M]) -> M | Rejected:
    """One value of any topic → its schema, or why not."""
    if not value:
        return Rejected("empty", "the record has no value")
    if len(value) > MAX_VALUE_BYTES:
        return Rejected("too_large", f"{len(value)} bytes; at most {MAX_VALUE_BYTES} are read")
    try:
        return schema.model_validate_json(value)
    except ValidationError as error:
        return _rejection(error)
    except RecursionError:
        return Rejected("not_json", "nested too deeply")


def _rejection(error: ValidationError) -> Rejected:
    problems = error.errors(include_url=False, include_input=False)
    if problems[0]["type"] in ("json_invalid", "model_type", "model_attributes_type"):
        return Rejected("not_json", problems[0]["msg"][:200])
    lines = (f"{'.'.join(map(str, p['loc'])) or 'value'}: {p['msg']}" for p in problems)
    return Rejected("invalid", "; ".join(lines)[:500])


def decode_interaction(
    record: Record, partitions: int, future_tolerance_ms: int
) -> Interaction | Misrouted | Rejected:
    """One record of topic `interactions` → what to do with it.

    `record.timestamp` is Kafka's time of the record, the only clock used.
    """
    decoded = decode(record.value, Interaction)
    if isinstance(decoded, Rejected):
        return decoded
    ahead = decoded.timestamp - record.timestamp
    if ahead > future_tolerance_ms:
        return Rejected("future", f"event time is {ahead / 1000:.0f} s after the record's time")
    home = _partition_of_user(decoded.user_id, partitions)
    if record.partition != home or record.key != decoded.user_id.encode():
        if any(name == FORWARDED_HEADER for name, _ in record.headers):
            found = (record.key or b"")[:KEY_BYTES]
            return Rejected("wrong_key", f"key {found!r:.80} for user {decoded.user_id:.80}")
        return Misrouted(decoded, home)
    return decoded


def decode_for_user(record: Record, schema: type[M], partitions: int) -> M | Rejected:
    """One record of a topic keyed by user, other than `interactions`; it lies where it belongs.

    Under another key or in another partition it would reach a worker that does not keep the
    user, and stand in a compacted topic under another user's name.
    """
    decoded = decode(record.value, schema)
    if isinstance(decoded, Rejected):
        return decoded
    user_id: str = decoded.user_id  # type: ignore[attr-defined]
    if record.key != user_id.encode():
        found = (record.key or b"")[:KEY_BYTES]
        return Rejected("wrong_key", f"key {found!r:.80} for user {user_id!r:.80}")
    home = _partition_of_user(user_id, partitions)
    if record.partition != home:
        return Rejected("wrong_key", f"partition {record.partition}, the user's is {home}")
    return decoded


def id_of(key: bytes | None) -> str | Rejected:
    """The id that a key names; a record without a value has no other."""
    if not key:
        return Rejected("wrong_key", "the record has no key")
    if len(key) > KEY_BYTES:
        return Rejected("wrong_key", f"key of {len(key)} bytes; no id has more than {KEY_BYTES}")
    try:
        return key.decode()
    except UnicodeDecodeError:
        return Rejected("wrong_key", f"key {key!r:.80} is not UTF-8")


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


class Letter(NamedTuple):
    """What is published of a refused record: small enough for any broker to take."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def dead_letter(record: Record, why: Rejected) -> Letter:
    """The beginnings of the original's key and value, why, and where it was."""
    original = record.value or b""
    headers = {
        "reason": why.reason,
        "detail": why.detail,
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "size": str(len(original)),
        "sha256": hashlib.sha256(original).hexdigest(),
        **_cut_key(record.key),
    }
    told = [(f"palate-{name}", text.encode(errors="replace")) for name, text in headers.items()]
    key = None if record.key is None else record.key[:KEY_BYTES]
    return Letter(key, original[:DEAD_LETTER_BYTES], told)


def _cut_key(key: bytes | None) -> dict[str, str]:
    """Size and digest of a key that is too long to be kept whole."""
    if key is None or len(key) <= KEY_BYTES:
        return {}
    return {"key-size": str(len(key)), "key-sha256": hashlib.sha256(key).hexdigest()}
