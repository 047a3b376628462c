"""Waiting for as long as the roles do something, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from deploy.demo.plan import BURST
from deploy.observe import MetricLine, scrape, total
from deploy.stack import Role, Stack
from models.errors import StackError

T = TypeVar("T")
POLL_S: Final = 0.25
LOOK_S: Final = 2.0  # between two looks at all counters
STANDSTILL_S: Final = 180.0  # one profile takes up to half a minute on a busy machine
AT_MOST_S: Final = 900.0  # a demo that takes longer is nothing to watch


# How far the tracker and the profiler are behind the events that were sent.

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


class Patience:
    """Lasts while anything that is counted moves, but `at_most_s` in all."""

    def __init__(
        self,
        counters: Callable[[], object],
        at_most_s: float = AT_MOST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters, self._at_most_s, self._clock = counters, at_most_s, clock
        self._began = self._moved = clock()
        self._looked, self._last = -LOOK_S, object()

    def over(self) -> str | None:
        """None while waiting is of use; else what was observed, as the end of a sentence."""
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._looked, before, self._last = now, self._last, self._counters()
            if self._last != before:
                self._moved = now
        if now - self._moved > STANDSTILL_S:
            return f"no role has done anything for {STANDSTILL_S:.0f} s"
        return (
            f"{self._at_most_s:.0f} s have passed" if now - self._began > self._at_most_s else None
        )


def counters_of(stack: Stack) -> list[MetricLine]:
    """What all roles have counted so far."""
    samples = [sample for role in stack.roles for sample in scrape(role.url)]
    return [s for s in samples if s.name.startswith("palate_") and s.name.endswith("_total")]


def first(look: Callable[[], T | None], patience: Patience) -> T | None:
    """The first thing that `look` returns other than None; None when patience is over."""
    while True:
        found = look()
        if found is not None or patience.over():
            return found
        time.sleep(POLL_S)


def wait_for(look: Callable[[], T | None], patience: Patience, what: str) -> T:
    """As `first`. Raises StackError when patience is over."""
    found = first(look, patience)
    if found is None:
        raise StackError(f"waited for {what} in vain: {patience.over()}; see the demo's logs")
    return found


def settled(look: Callable[[], bool], patience: Patience) -> bool:
    """Wait until `look` is true; whether it became true."""
    return bool(first(lambda: look() or None, patience))


def samples_of(stack: Stack, name: str, within_s: float = STANDSTILL_S) -> list[MetricLine]:
    """The metrics of one role now; a busy one may take a while to answer.

    Raises StackError, with the end of its log if it has died, if it does not answer.
    """
    role: Role = next(role for role in stack.roles if role.name == name)
    deadline = time.monotonic() + within_s
    while True:
        stack.not_ready(role)  # raises if it has died
        samples = scrape(role.url)
        if samples:
            return samples
        if time.monotonic() > deadline:
            raise StackError(f"{name} has not answered for {within_s:.0f} s; see {stack.logs}")
        time.sleep(POLL_S)
