"""Waiting for as long as the roles do something, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from deploy.observe import MetricLine, scrape
from deploy.stack import Role, Stack
from models.errors import StackError

T = TypeVar("T")
POLL_S: Final = 0.25
LOOK_S: Final = 2.0  # between two looks at all counters
STANDSTILL_S: Final = 180.0  # one profile takes up to half a minute on a busy machine
AT_MOST_S: Final = 900.0  # a demo that takes longer is nothing to watch


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
