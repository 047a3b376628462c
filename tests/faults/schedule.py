"""Which faults, in which order: drawn from a seed, so that a run can be run again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.faults.registry import Fault

TOGETHER = 3  # small faults that share one check


def schedule(kinds: Sequence[Fault], faults: int, seed: int) -> list[list[Fault]]:
    """`faults` faults in groups. A fault that stands alone has a check of its own.

    They are drawn from a bag that holds each kind as often as it weighs, and that is filled again
    when it is empty: every kind comes before any comes once too often.
    """
    chance = random.Random(seed)
    drawn = _drawn(kinds, chance)
    return _grouped([next(drawn) for _ in range(faults)])


def _drawn(kinds: Sequence[Fault], chance: random.Random) -> Iterator[Fault]:
    while True:
        bag = [kind for kind in kinds for _ in range(kind.weight)]
        chance.shuffle(bag)
        yield from bag


def _grouped(faults: Sequence[Fault]) -> list[list[Fault]]:
    """A small fault joins the last group of small ones that has room."""
    groups: list[list[Fault]] = []
    small: list[Fault] = []
    for fault in faults:
        if fault.alone:
            groups.append([fault])
            continue
        if not small or len(small) == TOGETHER:
            small = []
            groups.append(small)
        small.append(fault)
    return groups
