"""Profile requests and records for the tests of this folder."""

from __future__ import annotations

from typing import Any

from aiokafka import ConsumerRecord

from models.identity import request_id
from models.schemas import InteractionType, ProfileRequest, WindowEntry, Windows

AS_OF = 1_300_000_000_000
TITLES = ("white hanging lantern", "red retrospot lunch bag", "vintage paper chain kit")


def entry(number: int, text: str) -> WindowEntry:
    return WindowEntry(
        event_id=f"e{number}",
        item_id=f"i{number}",
        type=InteractionType.PURCHASE,
        timestamp=AS_OF - 3_600_000 * (10 - number),
        text=text,
    )


def request(
    user_id: str = "ada", applied: int = 10, number: int = 1, **fields: Any
) -> ProfileRequest:
    entries = tuple(entry(n, title) for n, title in enumerate(TITLES))
    values = {
        "request_id": request_id(user_id, applied, -1, AS_OF + number),
        "user_id": user_id,
        "number": number,
        "as_of": AS_OF + number,
        "applied_offset": applied,
        "partition": 0,
        "windows": Windows(long=entries, medium=entries, short=entries),
        "windows_hash": "w",
        "rule": "first",
        "staleness": 1.0,
        "requested_at": AS_OF,
    }
    return ProfileRequest.model_validate(values | fields)


def record(
    offset: int, value: bytes | None, partition: int = 0, key: str = "ada"
) -> ConsumerRecord:
    return ConsumerRecord(
        topic="profile-requests",
        partition=partition,
        offset=offset,
        timestamp=AS_OF,
        timestamp_type=0,
        key=key.encode(),
        value=value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=(),
    )
