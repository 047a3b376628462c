"""Whether what an engine wrote is text at all. Whether it is true, grounding decides. Pure."""

from __future__ import annotations

import zlib
from typing import Final

MOST_UNPRINTABLE: Final = 0.1  # share of characters; more is binary
MOST_COMPRESSIBLE: Final = 12.0  # English shrinks 2 to 4 times, a loop of one phrase 15 and more
LOOPS_FROM_BYTES: Final = 400  # shorter texts compress too little to judge
MOST_CHARS_PER_TOKEN: Final = 40  # a longer answer ignores the limit that it was given


def nonsense(text: str, max_new_tokens: int) -> str | None:
    """Why a completion is no text: empty, endless, binary or loop; None if it is one."""
    stripped = text.strip()
    if not any(character.isalpha() for character in stripped):
        return "empty"
    if len(stripped) > max_new_tokens * MOST_CHARS_PER_TOKEN:
        return "endless"
    strange = sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in stripped)
    if strange > MOST_UNPRINTABLE * len(stripped):
        return "binary"
    return "loop" if _loops(stripped.encode()) else None


def _loops(text: bytes) -> bool:
    return (
        len(text) >= LOOPS_FROM_BYTES and len(text) / len(zlib.compress(text)) > MOST_COMPRESSIBLE
    )
