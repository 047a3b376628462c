"""What ends is started again, after pauses that grow while it does not stay up."""

from __future__ import annotations

from itertools import pairwise

import pytest

from deploy.stack import FIRST_PAUSE_S, LONGEST_PAUSE_S, POLL_S, STEADY_S, Supervised
from models.errors import StackError


class Part:
    """A process that runs for `lasts` seconds each time; time is what the test says it is."""

    def __init__(self, lasts: float) -> None:
        self.lasts, self.now = lasts, 0.0
        self.ends = lasts
        self.starts: list[float] = []
        self.said: list[str] = []
        self.refusals, self.refusal = 0, Exception()
        self.supervised = Supervised("part", self.runs, self.start, lambda: "part stops: oh")

    def runs(self) -> bool:
        return self.now < self.ends

    def start(self) -> None:
        self.starts.append(self.now)
        if self.refusals:
            self.refusals -= 1
            raise self.refusal
        self.ends = self.now + self.lasts

    def watch(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.supervised.look(self.now, lambda _, what: self.said.append(what))
            self.now += POLL_S

    def pauses(self) -> list[float]:
        ends = [self.lasts, *(start + self.lasts for start in self.starts)]
        return [start - end for start, end in zip(self.starts, ends, strict=False)]


def test_what_has_ended_is_started_again_soon_and_its_last_words_are_said() -> None:
    part = Part(lasts=5.0)
    part.watch(5.0 + FIRST_PAUSE_S + 2 * POLL_S)
    assert len(part.starts) == 1
    assert part.said == ["ended (part stops: oh); again in 1 s", "started again"]


def test_a_crash_loop_does_not_spin() -> None:
    part = Part(lasts=0.5)
    part.watch(400.0)
    pauses = part.pauses()
    assert all(later > earlier for earlier, later in pairwise(pauses[:6]))
    assert max(pauses) <= LONGEST_PAUSE_S + 3 * POLL_S
    assert len(part.starts) < 15


def test_what_has_stayed_up_is_started_again_soon_again() -> None:
    part = Part(lasts=0.5)
    part.watch(100.0)
    part.lasts = STEADY_S + 10.0
    part.watch(400.0)
    assert part.pauses()[-1] <= FIRST_PAUSE_S + 3 * POLL_S


@pytest.mark.parametrize("refusal", [StackError("port taken"), OSError(28, "disk full")], ids=str)
def test_a_part_that_cannot_be_started_is_said_and_tried_again(refusal: Exception) -> None:
    part = Part(lasts=5.0)
    part.refusals, part.refusal = 2, refusal
    part.watch(30.0)
    assert part.said.count(f"cannot be started: {refusal}") == 2
    assert part.said.count("started again") >= 1
