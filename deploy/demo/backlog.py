"""How far the tracker and the profiler are behind the events that were sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from deploy.demo.plan import BURST
from deploy.demo.waiting import Patience, samples_of
from deploy.observe import total
from deploy.stack import Stack

MOST_UNANSWERED: Final = int(BURST)  # requests; a burst of them is answered in seconds
MOST_UNAPPLIED: Final = 1_000  # events; the tracker applies thousands a second


class StackProgress(NamedTuple):
    """What tracker and profiler have done and have still to do."""

    applied: int  # events
    waiting: int  # customers whose list is to be made
    due: int  # customers whose profile is to be asked for, when the budget allows it
    requests: int
    written: int
    dropped: int  # requests that a newer one took the place of

    @property
    def unanswered(self) -> int:
        """Requests for which there is no profile yet."""
        return max(0, self.requests - self.written - self.dropped)

    def holds_back(self, sent: int) -> bool:
        """Whether more events would make profiles older than the machine can renew them."""
        return self.unanswered > MOST_UNANSWERED or sent - self.applied > MOST_UNAPPLIED

    def is_done(self, sent: int) -> bool:
        """Whether nothing is left to do for any event that was sent."""
        left = (sent - self.applied, self.waiting, self.due, self.unanswered)
        return max(left) <= 0

    def in_words(self, sent: int) -> str:
        """What has been done of what was sent."""
        return (
            f"{self.applied:,} of {sent:,} events applied, {self.waiting} lists to be made; "
            f"{self.written} profiles written, {self.unanswered} asked for, {self.due} due"
        )


def backlog(stack: Stack) -> StackProgress:
    """As the roles' metrics say it now. Raises StackError if one has died."""
    tracker, profiler = samples_of(stack, "tracker-0"), samples_of(stack, "profiler")
    return StackProgress(
        applied=int(total(tracker, "palate_events_total", outcome="applied")),
        waiting=int(total(tracker, "palate_waiting_users")),
        due=int(total(tracker, "palate_profiles_due")),
        requests=int(total(tracker, "palate_profile_requests_total")),
        written=int(total(profiler, "palate_profiles_total")),
        dropped=int(total(profiler, "palate_requests_dropped_total")),
    )


class Pace:
    """Whether the stream waits for the roles, and for how long it has done so."""

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self._since: float | None = None  # the stream has been held back
        self.held_s = 0.0
        self.gave_up: str | None = None  # why the roles are not waited for any longer

    def holds_back(self, now: StackProgress, sent: int) -> bool:
        """Whether the stream waits; asked again and again while it does."""
        if self._since is not None:
            self.held_s += self._clock() - self._since
        self.gave_up = self.gave_up or self._patience.over()
        held = self.gave_up is None and now.holds_back(sent)
        self._since = self._clock() if held else None
        return held
