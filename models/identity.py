"""Ids and hashes that name inputs, so that doing a thing twice makes the same id."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson


def digest(*parts: Any, chars: int = 32) -> str:
    """Hex sha256 over the JSON of `parts`, cut to `chars`."""
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:chars]


def request_id(user_id: str, applied_offset: int, edits_offset: int, as_of: int) -> str:
    """Name of a profile request."""
    return digest("request", user_id, applied_offset, edits_offset, as_of)


def profile_id(
    user_id: str,
    applied_offset: int,
    edits_offset: int,
    as_of: int,
    release: str,
    prompt_version: str,
) -> str:
    """Name of a profile (architecture, property 4)."""
    return digest("profile", user_id, applied_offset, edits_offset, as_of, release, prompt_version)


def fallback_profile_id(profile_id: str) -> str:
    """Name of the stand-in for a profile that the engine did not write.

    Another id than the profile's own: who keeps the first of an id still takes the profile that
    replaces the stand-in, and makes a recommendation of its own from it.
    """
    return digest("fallback", profile_id)


def recommendation_id(
    user_id: str,
    applied_offset: int,
    edits_offset: int,
    profile_id: str | None,
    release: str,
    trigger: str,
) -> str:
    """Name of a recommendation (architecture, property 4)."""
    return digest(
        "recommendation", user_id, applied_offset, edits_offset, profile_id, release, trigger
    )


def text_hash(text: str) -> str:
    """Hex sha256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()
