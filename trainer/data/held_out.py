"""Users that no shipped model was trained on, known by their id alone.

The starter release is trained on data/sample without them; its figures are measured on them, and
the demo shows customers from among them. The rule is a hash: it favours nobody and needs no list.
"""

from __future__ import annotations

import hashlib
from typing import Final

ONE_IN: Final = 3


def held_out(user_id: str) -> bool:
    """Whether the first 8 hexadecimal digits of sha256(user id, UTF-8) are a multiple of 3."""
    return int(hashlib.sha256(user_id.encode()).hexdigest()[:8], 16) % ONE_IN == 0
