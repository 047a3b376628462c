"""Waiting for something to become true, with a deadline and with what is seen meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from deploy.observe import Sample, scrape
from deploy.stack import Role, Stack
from models.errors import StackError

T = TypeVar("T")
POLL_S = 0.25


def first(look: Callable[[], T | None], within_s: float) -> T | None:
    """The first thing that `look` returns other than None; None at the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found is not None or time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)


def wait_for(look: Callable[[], T | None], within_s: float, what: str) -> T:
    """As `first`. Raises StackError at the deadline."""
    found = first(look, within_s)
    if found is None:
        raise StackError(f"waited {within_s:.0f} s for {what}, in vain; see the demo's logs")
    return found


def settled(look: Callable[[], bool], within_s: float) -> bool:
    """Wait until `look` is true, at most so long; whether it became true."""
    return bool(first(lambda: look() or None, within_s))


def samples_of(stack: Stack, name: str) -> list[Sample]:
    """The metrics of one role now. Raises StackError with its log if it has died."""
    role: Role = next(role for role in stack.roles if role.name == name)
    stack.not_ready(role)
    return scrape(role.url)
