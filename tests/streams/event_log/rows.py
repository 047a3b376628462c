"""Rows for tests of the event log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from models.schemas import Interaction


def row(offset: int, partition: int = 0, **fields: Any) -> dict[str, Any]:
    """An accepted interaction at `offset`."""
    interaction = Interaction(
        **{
            "event_id": f"e{offset}",
            "user_id": "ann",
            "item_id": f"i{offset % 7}",
            "type": "purchase",
            "timestamp": 1_300_000_000_000 + offset,
        }
        | fields
    )
    value = interaction.to_json()
    return {
        "offset": offset,
        "partition": partition,
        "kafka_time": interaction.timestamp,
        "key": interaction.user_id.encode(),
        "value": value,
        "size": len(value),
        "status": "ok",
        **interaction.model_dump(),
    }


def rows(offsets: Iterable[int]) -> list[dict[str, Any]]:
    """Accepted interactions at these offsets."""
    return [row(offset) for offset in offsets]


def invalid_row(offset: int, value: bytes = b"not json") -> dict[str, Any]:
    """A row of a message that was rejected."""
    return {
        "offset": offset,
        "partition": 0,
        "kafka_time": 1_300_000_000_000,
        "key": b"ann",
        "value": value,
        "size": len(value),
        "status": "invalid",
        "reason": "not_json",
        "detail": "expected value",
    }
