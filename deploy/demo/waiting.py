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


def wait_for(look: Callable[[], T | None], within_s: float, what: str) -> T:
    """The first thing that `look` returns other than None. Raises StackError at the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise StackError(f"waited {within_s:.0f} s for {what}, in vain; see the demo's logs")
        time.sleep(POLL_S)


def settled(
    look: Callable[[], bool], within_s: float, meanwhile: Callable[[], None] = lambda: None
) -> bool:
    """Wait until `look` is true, at most so long; whether it became true."""
    deadline = time.monotonic() + within_s
    while not look():
        if time.monotonic() > deadline:
            return False
        meanwhile()
        time.sleep(POLL_S)
    return True


def samples_of(stack: Stack, name: str) -> list[Sample]:
    """The metrics of one role now. Raises StackError with its log if it has died."""
    role: Role = next(role for role in stack.roles if role.name == name)
    stack.not_ready(role)
    return scrape(role.url)
