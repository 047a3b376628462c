"""The demo waits for as long as the roles do something, and its stream no faster than they do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from deploy.demo import traffic, waiting
from deploy.demo.waiting import (
    AT_MOST_S,
    MOST_UNANSWERED,
    MOST_UNAPPLIED,
    STANDSTILL_S,
    Pace,
    Patience,
    StackProgress,
    settled,
    wait_for,
)
from models.errors import StackError
from models.settings import load_settings
from streams.importers.survey import Ready


class Clock:
    """Seconds that pass only when somebody sleeps or looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(waiting.time, "sleep", made.sleep)
    return made


def test_waiting_lasts_while_anything_moves_however_long_it_takes(clock: Clock) -> None:
    numbers = count()
    patience = Patience(lambda: next(numbers), clock=clock)
    assert settled(lambda: clock.now > 3 * STANDSTILL_S, patience)


def test_waiting_ends_when_nothing_moves_and_says_so(clock: Clock) -> None:
    patience = Patience(lambda: "always the same", clock=clock)
    assert not settled(lambda: False, patience)
    assert STANDSTILL_S < clock.now < 1.1 * STANDSTILL_S
    assert patience.over() == f"no role has done anything for {STANDSTILL_S:.0f} s"


def test_waiting_ends_some_time_even_if_something_moves(clock: Clock) -> None:
    numbers = count()
    with pytest.raises(StackError, match=rf"for lists in vain: {AT_MOST_S:.0f} s have passed"):
        wait_for(lambda: None, Patience(lambda: next(numbers), clock=clock), "lists")


def a_backlog(**changes: int) -> StackProgress:
    nothing = {"waiting": 0, "due": 0, "requests": 40, "written": 30, "dropped": 10}
    return StackProgress(**{"applied": 5_000, **nothing, **changes})


def test_profiles_that_are_due_by_the_budget_do_not_hold_the_stream_back() -> None:
    assert not a_backlog(due=100).holds_back(sent=5_000)
    assert not a_backlog(due=100).is_done(sent=5_000)


@pytest.mark.parametrize(
    "behind",
    [{"written": 30 - MOST_UNANSWERED - 1}, {"applied": 5_000 - MOST_UNAPPLIED - 1}],
    ids=["profiler", "tracker"],
)
def test_the_stream_is_held_back_while_a_role_is_behind_it(behind: dict[str, int]) -> None:
    clock = Clock()
    pace = Pace(Patience(lambda: None, clock=clock), clock)
    assert not pace.holds_back(a_backlog(), 5_000)
    clock.sleep(7.0)
    assert pace.holds_back(a_backlog(**behind), 5_000)
    clock.sleep(3.0)
    assert pace.holds_back(a_backlog(**behind), 5_000)
    clock.sleep(2.0)
    assert not pace.holds_back(a_backlog(), 5_000)
    assert pace.held_s == 5.0
    assert pace.gave_up is None


def test_a_role_that_does_nothing_any_more_holds_nothing_back() -> None:
    clock = Clock()
    pace = Pace(Patience(lambda: "the same", clock=clock), clock)
    behind = a_backlog(written=0)
    assert pace.holds_back(behind, 5_000)
    clock.sleep(2 * STANDSTILL_S)
    pace.holds_back(behind, 5_000)
    clock.sleep(2 * STANDSTILL_S)
    assert not pace.holds_back(behind, 5_000)
    assert pace.gave_up == f"no role has done anything for {STANDSTILL_S:.0f} s"


class Sender:
    """Takes messages, and notes after how many of them somebody was asked about the backlog."""

    def __init__(self) -> None:
        self.sent = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, *_: Any) -> Any:
        self.sent += 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def held_for(looks: int) -> Iterator[bool]:
    yield from [True] * looks
    while True:
        yield False


def test_nothing_is_sent_while_the_stream_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, answers, sent = Sender(), held_for(3), []
    monkeypatch.setattr("streams.kafka.clients.producer", lambda *_a, **_k: sender)
    monkeypatch.setattr(traffic, "HOLD_S", 0.001)

    def behind() -> bool:
        sent.append(sender.sent)
        return next(answers)

    live = [Ready(n, b"u", b"{}", n) for n in range(150)]
    asyncio.run(traffic.send(load_settings(), "interactions", live, nobody, 100_000.0, behind))
    assert sent == [50, 50, 50, 50, 100, 150]
    assert sender.sent == len(live)


def nobody(_: int) -> None:
    """Is told how many were sent."""
