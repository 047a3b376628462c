"""Canaries for tests that have an engine and no policy: measured on the engine itself."""

from __future__ import annotations

from collections.abc import Sequence

from models.ports import CanaryLine, ProfileEncoder
from models.release.canary import measure


async def canary_of(
    encoder: ProfileEncoder, texts: Sequence[tuple[str, str]], adapter: str
) -> tuple[CanaryLine, ...]:
    """The lines of a manifest, from (prompt, text) pairs and a prepared adapter."""
    own, base = await measure(encoder, texts, adapter), await measure(encoder, texts, None)
    pairs = zip(texts, own, base, strict=True)
    return tuple(CanaryLine(prompt, text, one, other) for (prompt, text), one, other in pairs)
