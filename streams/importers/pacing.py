"""Replaying at a multiple of event time. Pure: both clocks are arguments."""

from __future__ import annotations


class Pacer:
    """Tells how long to wait so that event time runs `speed` times as fast as wall time.

    The first event sets both clocks' zero. An event earlier than that, or late, does not wait.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._zero: tuple[int, float] | None = None

    def wait_s(self, event_ms: int, wall_s: float) -> float:
        """Seconds from `wall_s` until the event is due; 0 if it is."""
        if self._zero is None:
            self._zero = (event_ms, wall_s)
        first_ms, first_s = self._zero
        due = first_s + (event_ms - first_ms) / 1000 / self._speed
        return max(0.0, due - wall_s)
