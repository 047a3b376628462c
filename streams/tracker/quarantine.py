"""Users set apart: the last resort of the loops, as streams/last_resort.py is that of the agents.

A user with whom a loop fails, or for whom Kafka refuses what was made, is left alone for a while,
so that all others are served. What Kafka refused is not made again before the user's state moves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import msgspec

from streams.last_resort import failure
from streams.metrics import TrackerMetrics
from streams.tracker.users import Place, Users

log = logging.getLogger(__name__)

APART_S: Final = 60.0


class _StateMark(msgspec.Struct, frozen=True):
    """The state that a request or a list was made of."""

    applied_offset: int
    edits_offset: int = -1


class _Held(NamedTuple):
    until: float  # monotonic seconds
    refused: _StateMark | None = None  # and for as long as the user's state is this one


class UserQuarantine:
    """The users whom one loop leaves alone now."""

    def __init__(self, loop: str, users: Users, metrics: TrackerMetrics) -> None:
        """`loop` is the label of its metric: serve, ask, move."""
        self._loop, self._users = loop, users
        self._failed = metrics.users_failed.labels(loop=loop)
        self._held: dict[Place, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, place: Place) -> bool:
        """Whether the user is to be left alone now."""
        held = self._held.get(place)
        if held is None:
            return False
        return time.monotonic() < held.until or held.refused == self._mark(place)

    def returned(self, partitions: Container[int]) -> list[Place]:
        """Users of these partitions who are set apart no longer; each is named once."""
        back = [place for place in self._held if place[0] in partitions and not self.holds(place)]
        for place in back:
            del self._held[place]
        return back

    @contextmanager
    def sparing(self, place: Place) -> Iterator[None]:
        """For work on one user: if it fails, they are set apart. What is systemic is raised."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever it is, the next user is served)
            self.fail(place, error)

    def fail(self, place: Place, error: Exception) -> None:
        """Set the user apart. Raises `error` if no user is to blame for it."""
        failure(error)
        self._hold(place, _Held(time.monotonic() + APART_S))
        log.error(
            "partition %d: user %.80r makes the loop `%s` fail, and is set apart for %g s",
            *(*place, self._loop, APART_S),
            exc_info=error,
        )

    def refuse(self, place: Place, message: bytes, error: Exception) -> None:
        """Set the user apart for whom Kafka refuses this request or list."""
        mark = msgspec.json.decode(message, type=_StateMark)
        self._hold(place, _Held(time.monotonic() + APART_S, mark))
        log.error(
            "partition %d: what the loop `%s` made for user %.80r is given up until their next "
            "event: Kafka refuses its %d bytes (%r); are kafka.max_message_bytes and the topic's "
            "max.message.bytes as they were?",
            *(place[0], self._loop, place[1], len(message), error),
        )

    def _hold(self, place: Place, held: _Held) -> None:
        self._held[place] = held
        self._failed.inc()

    def _mark(self, place: Place) -> _StateMark:
        head = self._users.get(*place).head
        return _StateMark(head.applied, head.edits)
