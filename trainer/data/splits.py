"""What is trained on, what is chosen by, what is tested: one split for every task.

The global split is by event time over all users, so nothing that is learned has seen anything of
the time it is tested on (methods §10.2). Leave-one-out stands beside it for
comparison with papers: it leaks time across users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.training_settings import SessionSettings

Split = Literal["train", "validation", "test"]
SplitProtocol = Literal["temporal", "leave-one-out"]


class TimeSpan(NamedTuple):
    """Event times of one split, epoch ms: since ≤ time < until."""

    split: Split
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Borders:
    """The global temporal split, in epoch ms of event time."""

    first: int
    train_end: int  # training reads events before it
    validation_end: int  # the test begins
    end: int  # after the last event

    def spans(self) -> Iterator[TimeSpan]:
        """The three splits in order of time."""
        yield TimeSpan("train", self.first, self.train_end)
        yield TimeSpan("validation", self.train_end, self.validation_end)
        yield TimeSpan("test", self.validation_end, self.end)


def temporal_borders(times: NDArray[np.int64], settings: SessionSettings) -> Borders:
    """Borders that give validation and test their shares of the events.

    Events of one time are never parted, so the shares are approximate where times are coarse.
    """
    if not len(times):
        return Borders(0, 0, 0, 0)
    test_from = int(len(times) * (1 - settings.test))
    validation_from = int(len(times) * (1 - settings.test - settings.validation))
    ordered = np.partition(times, (validation_from, min(test_from, len(times) - 1)))
    return Borders(
        first=int(times.min()),
        train_end=int(ordered[validation_from]),
        validation_end=int(ordered[min(test_from, len(times) - 1)]),
        end=int(times.max()) + 1,
    )


class Cut(NamedTuple):
    """Targets of one session as positions start..stop-1 in a user's sequence of positives."""

    split: Split
    start: int
    stop: int


def leave_one_out(length: int, settings: SessionSettings) -> list[Cut]:
    """Sessions of a sequence of `length` positives: the last is the test, the one before the
    validation, and up to `per_user` sessions lie in the rest, newest first.
    """
    if length < 3:
        return []
    held_out = [Cut("test", length - 1, length), Cut("validation", length - 2, length - 1)]
    newest = range(length - 3, settings.min_history - 1, -1)
    trained = [
        Cut("train", start, min(start + settings.horizon, length - 2))
        for start in newest[: settings.per_user]
    ]
    return held_out + trained
