"""How recent an event is among those of many users.

Recency needs a "now" of the data. The newest event is a bad one: a single wrong clock moves it by
years, and then everything else is old. So "now" is the newest time of a user, passing over the
`STRAY` users who are furthest ahead; of fewer than a dozen users a quarter is passed over, and of
fewer than four nobody. What is newer than "now" counts as new.
"""

from __future__ import annotations

from typing import Final

STRAY: Final = 3  # users who may say anything, as in streams.partition_clock
OF: Final = 4  # at most one stray user among so many


class Reached:
    """The "now" of the events so far, one by one; it remembers a dozen users at most."""

    def __init__(self) -> None:
        self._newest: dict[bytes, int] = {}  # of the users furthest ahead, epoch ms

    @property
    def time(self) -> int | None:
        """Epoch ms; None before the first event."""
        times = sorted(self._newest.values())
        return times[-1 - stray(len(times))] if times else None

    def see(self, user: bytes, time: int) -> None:
        """An event of the user, at `time` (epoch ms)."""
        if len(self._newest) == STRAY * OF and user not in self._newest:
            earliest = min(self._newest, key=self._newest.__getitem__)
            if time <= self._newest[earliest]:
                return
            del self._newest[earliest]
        self._newest[user] = max(time, self._newest.get(user, time))


def stray(users: int) -> int:
    """How many users are passed over, of so many."""
    return min(STRAY, users // OF)
