"""Hard negatives that are probably not false ones.

The items nearest to a user's text are the most instructive negatives, and the likeliest to be
liked unseen: taken as they come they halve the ranking's quality (methods §7.4). So one is kept
only below a share of the positive's score (NV-Retriever's TopK-PercPos, arXiv 2407.15831).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.ports import Vectors


def mine(
    profiles: Vectors,
    items: Vectors,
    positives: Sequence[NDArray[np.int64]],
    had: Sequence[NDArray[np.int64]],
    *,
    count: int,
    below: float,
) -> list[NDArray[np.int64]]:
    """Per profile up to `count` item rows, best first.

    profiles: [pairs, dimension]; items: [items, dimension]; unit length. None of them is a
    positive or was had, and all score below `below` × the lowest score of the positives; a pair
    whose positives score 0 or less gets none.
    """
    return [
        _of_one(items @ profile, own, known, count, below)
        for profile, own, known in zip(profiles, positives, had, strict=True)
    ]


def _of_one(
    scores: NDArray[np.float32],
    positives: NDArray[np.int64],
    had: NDArray[np.int64],
    count: int,
    below: float,
) -> NDArray[np.int64]:
    lowest = float(scores[positives].min())
    if lowest <= 0:
        return np.zeros(0, np.int64)
    kept = scores < below * lowest
    kept[positives], kept[had] = False, False
    found = np.flatnonzero(kept)
    best = np.lexsort((found, -scores[found]))[:count]
    return found[best]
