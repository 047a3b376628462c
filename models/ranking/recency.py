"""Recency of many events at once: "now" as in data_now.py, and the decay with age from there."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.ranking.data_now import stray
from models.settings import DAY_S

_DAY_MS: Final = DAY_S * 1000


def reached(users: NDArray[np.integer], times: NDArray[np.int64]) -> int:
    """The "now" of these events (epoch ms), as in data_now.py; 0 of none.

    `users`: [rows] numbers from 0, ascending; `times`: [rows], epoch ms.
    """
    if not len(users):
        return 0
    numbers = np.arange(int(users[-1]) + 1, dtype=users.dtype)
    begins = np.unique(np.searchsorted(users, numbers))  # a number may have no rows
    newest = np.maximum.reduceat(times, begins)
    place = len(newest) - 1 - stray(len(newest))
    return int(np.partition(newest, place)[place])


def recency(times: NDArray[np.int64], now: int, half_life_days: float) -> NDArray[np.float64]:
    """½^(age / half-life), 1 of what is newer than `now`; `times` and `now` in epoch ms."""
    days = np.maximum(now - times, 0) / _DAY_MS
    return np.asarray(np.exp2(-days / half_life_days), np.float64)
