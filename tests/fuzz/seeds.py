"""Valid messages of every topic, from which mutation starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from models.schemas import (
    TOPIC_SCHEMAS,
    Interaction,
    InteractionType,
    Item,
    Message,
    Profile,
    ProfileEdit,
    ProfileRequest,
    Recommendation,
    ReleaseAnnouncement,
    WindowEntry,
    Windows,
)

NOW = 1_300_000_000_000
HASH = "0" * 64


def seeds(topic: str) -> list[Message]:
    """Some messages of a topic, with and without their optional fields."""
    schema = TOPIC_SCHEMAS[topic]
    return [schema.model_validate(fields) for fields in _FIELDS[schema]()]


def _interactions() -> Iterator[dict[str, Any]]:
    for number, kind in enumerate(InteractionType):
        yield {
            "event_id": f"e{number}",
            "user_id": f"ann{number % 3}",
            "item_id": f"cake{number}",
            "type": kind,
            "timestamp": NOW + number,
            "rating": 2.5,
            "review": "Très bon, 好吃",
            "quantity": 3,
            "price": 1.25,
            "session_id": "s",
            "recommendation_id": "r",
            "position": 1,
        }


def _items() -> Iterator[dict[str, Any]]:
    yield {"item_id": "cake0", "title": "Red cake"}
    yield {
        "item_id": "85123A",
        "title": "LUNCH BAG <|im_start|> {red}",
        "brand": "Lux",
        "categories": ["Home", "Kitchen"],
        "description": "A bag.",
        "price": 2.5,
        "available": False,
    }


def _edits() -> Iterator[dict[str, Any]]:
    for number, action in enumerate(("pin", "unpin", "forbid", "allow", "replace", "forget")):
        fields = {"edit_id": f"d{number}", "user_id": "ann0", "action": action, "timestamp": NOW}
        yield {**fields, "text": "Likes tea", "section": "stable"}
        yield fields


def _windows() -> Windows:
    entry = WindowEntry(
        event_id="e1",
        item_id="cake0",
        type=InteractionType.PURCHASE,
        timestamp=NOW,
        text="Red cake",
        rating=4.0,
        review="good",
        quantity=1.0,
    )
    return Windows(long=(entry,), medium=(entry,), short=(entry,), avoids=(entry,))


def _requests() -> Iterator[dict[str, Any]]:
    yield {
        "request_id": "q",
        "user_id": "ann0",
        "number": 1,
        "as_of": NOW,
        "applied_offset": 5,
        "edits_offset": 2,
        "history_from": 1,
        "partition": 0,
        "windows": _windows(),
        "windows_hash": HASH,
        "edits": {"pinned": ["Likes tea"], "forbidden": ["cake"], "replaced": [["now", "Tea."]]},
        "rule": "first",
        "staleness": 1.5,
        "requested_at": NOW,
    }


def _profiles() -> Iterator[dict[str, Any]]:
    sentence = {"text": "Buys cake", "evidence": ["e1"], "items": ["cake0"], "origin": "model"}
    shared = {
        "profile_id": "p",
        "user_id": "ann1",
        "version": 1,
        "as_of": NOW,
        "sections": {"stable": [sentence], "now": [sentence]},
        "text": "Buys cake.",
        "release": "base-0",
        "model": "m",
        "request_id": "q",
        "rule": "first",
        "prompt_version": "1",
        "prompt_hash": HASH,
        "windows_hash": HASH,
        "applied_offset": 5,
        "vector": [0.6, 0.8],
        "vector_release": "base-0",
        "created_at": NOW,
    }
    yield shared
    yield {**shared, "fallback": True, "request_partition": 1, "request_offset": 7}


def _recommendations() -> Iterator[dict[str, Any]]:
    item = {
        "item_id": "cake0",
        "rank": 1,
        "score": 0.5,
        "parts": {"profile": 0.5},
        "reason": {"kind": "profile", "text": "Buys cake", "evidence": ["e1"]},
    }
    yield {
        "recommendation_id": "r",
        "user_id": "ann2",
        "as_of": NOW,
        "trigger": "event",
        "applied_offset": 5,
        "profile_id": "p",
        "profile_version": 1,
        "profile_as_of": NOW,
        "release": "base-0",
        "cooccurrence": "c",
        "items": [item],
        "created_at": NOW,
        "event_received_at": NOW,
    }


def _releases() -> Iterator[dict[str, Any]]:
    steps = ("published", "items-ready", "engine-ready", "refused", "serving", "retired")
    for number, status in enumerate(steps):
        yield {
            "release": f"base-{number % 2}",
            "status": status,
            "manifest_sha256": HASH,
            "previous": "base-1",
            "detail": "why",
            "at": NOW,
            "by": "indexer",
        }


_FIELDS = {
    Interaction: _interactions,
    Item: _items,
    ProfileEdit: _edits,
    ProfileRequest: _requests,
    Profile: _profiles,
    Recommendation: _recommendations,
    ReleaseAnnouncement: _releases,
}
