"""Many refreshes in a row: gate and memory together let gains stand and no slow loss through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from models.training_settings import GateSettings
from trainer.gate.decision import Measured, Verdict, Window, judge
from trainer.pipeline.outcome import RunMemory, RunOutcome
from trainer.reward.reward_hacking import WatchFigures

USERS = 1_000
SETTINGS = GateSettings(resamples=200)
WINDOW = Window(begins=1, serving_trained=0, anchor_trained=0)
FIRST = Measured(
    release="r-0",
    ranking=np.full(USERS, 0.1),
    profile_only=np.full(USERS, 0.1),
    shuffled=np.zeros(USERS),
    grounding=np.full(USERS, 0.9),
    tokens=60.0,
    watch=WatchFigures(copied=0.2, tokens=60.0, entropy=8.0, repeated=0.05, commonest=0.02),
)


def passes(refreshes: Iterable[Measured]) -> list[bool]:
    """Train again and again; what passes serves, as `trainer.pipeline.run` does it."""
    memory, made = RunMemory(), {FIRST.release: FIRST}
    promoted: Verdict | None = None  # what the gate said of the serving release
    serving, found = FIRST, []
    for candidate in refreshes:
        anchor = made[memory.anchor or serving.release]
        verdict = judge(candidate, serving, anchor, SETTINGS, WINDOW)
        ending = RunOutcome("passed" if verdict.passed else "refused", "", verdict=verdict)
        memory = memory.after(ending, 0, serving.release, promoted)
        made[candidate.release] = candidate
        if verdict.passed:
            serving, promoted = candidate, verdict
        found.append(verdict.passed)
    return found


def ranked(*changes: float) -> list[Measured]:
    """Refreshes that rank better or worse than the one before by so much, for each user alike."""
    return [
        replace(FIRST, release=f"r-{n}", ranking=FIRST.ranking + gained)
        for n, gained in enumerate(np.cumsum(changes), start=1)
    ]


def test_small_losses_after_a_gain_do_not_eat_it_up() -> None:
    """The gain of .03 is anchored: what is lost of it, .0015 at a time, may not reach .006."""
    found = passes(ranked(0.03, *[-0.0015] * 22))

    assert found[:4] == [True] * 4
    assert not any(found[4:])


def test_gains_in_small_steps_move_the_anchor_too() -> None:
    found = passes(ranked(*[0.001] * 10, *[-0.0015] * 10))

    assert all(found[:12])
    assert not any(found[14:])


def drifting(field: str, last: float, steps: int = 10) -> list[Measured]:
    """Refreshes that rank alike, with a figure that goes evenly to `last`."""
    made = []
    for n in range(1, steps + 1):
        one = replace(FIRST, release=f"r-{n}")
        if field == "grounding":
            made.append(replace(one, grounding=np.full(USERS, 0.9 + (last - 0.9) * n / steps)))
        elif field == "tokens":
            made.append(replace(one, tokens=60.0 + (last - 60.0) * n / steps))
        else:
            first = getattr(FIRST.watch, field)
            watch = replace(FIRST.watch, **{field: first + (last - first) * n / steps})
            made.append(replace(one, watch=watch))
    return made


@pytest.mark.parametrize(
    ("field", "last"),
    [
        ("grounding", 0.72),
        ("tokens", 180.0),
        ("tokens", 6.0),
        ("copied", 0.9),
        ("repeated", 0.8),
        ("commonest", 0.8),
        ("entropy", 4.0),
    ],
)
def test_profiles_that_get_a_little_worse_each_time_are_stopped(field: str, last: float) -> None:
    found = passes(drifting(field, last))

    assert found[0]
    assert not any(found[-5:])
