"""How long a test waits before what it waits for counts as hung. Its only limits are here.

No test may fail because a machine is slow or busy, and a hang is still to be found. So a limit is
several times what the slowest step takes on idle cores, and it is counted in seconds of a clock
that runs slower while the machine has more to do than it has cores.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

HANG_S: Final = 600.0  # of one wait; loading torch takes the longest, 10 s on idle cores
NEVER_S: Final = 86_400.0  # for limits of Palate's own that a test does not ask about
TICK_S: Final = 0.5


def crowding() -> float:
    """How many processes want each core, on average over the last minute; at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class MachineClock(threading.Thread):
    """Seconds that stretch while processes wait for cores, or while the machine stands still."""

    def __init__(self, crowding: Callable[[], float] = crowding) -> None:
        super().__init__(name="machine clock", daemon=True)
        self._crowding = crowding
        self._now = 0.0
        self._alarms: dict[object, tuple[float, Callable[[], None]]] = {}
        self._changing = threading.Lock()

    def run(self) -> None:
        while True:
            time.sleep(TICK_S)  # however long that takes
            self.tick()

    def tick(self) -> None:
        self._now += TICK_S / self._crowding()
        with self._changing:
            due = [key for key, (at, _) in self._alarms.items() if at <= self._now]
            ringing = [self._alarms.pop(key)[1] for key in due]
        for ring in ringing:
            ring()

    def __call__(self) -> float:
        return self._now

    def alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Call `ring` once in so many of this clock's seconds; what is returned calls that off."""
        key = object()
        with self._changing:
            self._alarms[key] = (self._now + seconds, ring)

        def call_off() -> None:
            with self._changing:
                self._alarms.pop(key, None)

        return call_off


machine_clock: Final = MachineClock()
machine_clock.start()


class Deadline:
    """The end of a wait: `while not condition(): assert not deadline.over(), what`."""

    def __init__(self, seconds: float = HANG_S, clock: Callable[[], float] = machine_clock) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def over(self) -> bool:
        return self._clock() > self._at


def until(condition: Callable[[], Any], what: Callable[[], str] | str, pause_s: float = 0.2) -> Any:
    """Wait until the condition holds, and return what it gave; fail with `what` if it hangs."""
    deadline = Deadline()
    while not (found := condition()):
        assert not deadline.over(), f"waited in vain for {what() if callable(what) else what}"
        time.sleep(pause_s)
    return found
