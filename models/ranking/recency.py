"""How recent an event is among those of many users.

Recency needs a "now" of the data. The newest event is a bad one: a single wrong clock moves it by
years, and then everything else is old. So "now" is the newest time of a user, passing over the
`STRAY` users who are furthest ahead; of fewer than a dozen users a quarter is passed over, and of
fewer than four nobody. What is newer than "now" counts as new.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.settings import DAY_S

STRAY: Final = 3  # users who may say anything, as in streams.partition_clock
_OF: Final = 4  # at most one stray user among so many
_DAY_MS: Final = DAY_S * 1000


class Reached:
    """`reached` of the events so far, one by one; it remembers a dozen users at most."""

    def __init__(self) -> None:
        self._newest: dict[bytes, int] = {}  # of the users furthest ahead, epoch ms

    @property
    def time(self) -> int | None:
        """Epoch ms; None before the first event."""
        times = sorted(self._newest.values())
        return times[-1 - _stray(len(times))] if times else None

    def see(self, user: bytes, time: int) -> None:
        """An event of the user, at `time` (epoch ms)."""
        if len(self._newest) == STRAY * _OF and user not in self._newest:
            earliest = min(self._newest, key=self._newest.__getitem__)
            if time <= self._newest[earliest]:
                return
            del self._newest[earliest]
        self._newest[user] = max(time, self._newest.get(user, time))


def reached(users: NDArray[np.integer], times: NDArray[np.int64]) -> int:
    """The "now" of these events (epoch ms), as above; 0 of none.

    `users`: [rows] numbers from 0, ascending; `times`: [rows], epoch ms.
    """
    if not len(users):
        return 0
    numbers = np.arange(int(users[-1]) + 1, dtype=users.dtype)
    begins = np.unique(np.searchsorted(users, numbers))  # a number may have no rows
    newest = np.maximum.reduceat(times, begins)
    place = len(newest) - 1 - _stray(len(newest))
    return int(np.partition(newest, place)[place])


def _stray(users: int) -> int:
    return min(STRAY, users // _OF)


def recency(times: NDArray[np.int64], now: int, half_life_days: float) -> NDArray[np.float64]:
    """½^(age / half-life), 1 of what is newer than `now`; `times` and `now` in epoch ms."""
    days = np.maximum(now - times, 0) / _DAY_MS
    return np.asarray(np.exp2(-days / half_life_days), np.float64)
