"""What is published of a record that was refused: its beginnings, why, and where it was. Pure.

How letters are read back and corrected: streams/dead_letter_replay.py.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from streams.codec import DEAD_LETTER_BYTES, KEY_BYTES, Record, Rejected


class Letter(NamedTuple):
    """What is published of a refused record: small enough for any broker to take."""

    key: bytes | None
    value: bytes | None
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
    removed = record.value is None and key is not None  # aiokafka sends no record without both
    value = None if removed else original[:DEAD_LETTER_BYTES]
    return Letter(key, value, told)


def _cut_key(key: bytes | None) -> dict[str, str]:
    """Size and digest of a key that is too long to be kept whole."""
    if key is None or len(key) <= KEY_BYTES:
        return {}
    return {"key-size": str(len(key)), "key-sha256": hashlib.sha256(key).hexdigest()}
