"""Circuit breaker: an engine that is down is asked whether it is well, not for every profile."""

from __future__ import annotations

from typing import Final

FAILURES_TO_OPEN: Final = 3


class Breaker:
    """Closed: calls pass. Open after three failures in a row: calls are not worth making.

    `probed_well` closes it to a trial: the next failure opens it again, a success restores it.
    Pure; the role decides when to probe.
    """

    def __init__(self) -> None:
        self._failures = 0
        self.open = False

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures = 0
        self.open = False

    def failed(self) -> None:
        """A call was not answered."""
        self._failures += 1
        self.open = self._failures >= FAILURES_TO_OPEN

    def probed_well(self) -> None:
        """The engine says that it is well again."""
        if self.open:
            self._failures = FAILURES_TO_OPEN - 1
            self.open = False
