"""What a benchmark reports."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `met` is None where there is no aim; `runs` are the single measurements."""

    name: str
    value: float
    unit: str
    aim: str = ""
    met: bool | None = None
    note: str = ""
    runs: tuple[float, ...] = ()


def median_row(name: str, runs: Sequence[float], unit: str, note: str = "") -> Figure:
    """The median of repetitions, without an aim."""
    return Figure(name, _rounded(statistics.median(runs)), unit, note=note, runs=_all_rounded(runs))


def at_least(name: str, runs: Sequence[float], least: float, unit: str, note: str = "") -> Figure:
    """The median of repetitions, which should be at least `least`."""
    value = statistics.median(runs)
    aim, met = f"≥ {least:g} {unit}".strip(), value >= least
    return Figure(name, _rounded(value), unit, aim, met, note, _all_rounded(runs))


def below(name: str, runs: Sequence[float], limit: float, unit: str, note: str = "") -> Figure:
    """The median of repetitions, which should be below `limit`."""
    value = statistics.median(runs)
    aim, met = f"< {limit:g} {unit}".strip(), value < limit
    return Figure(name, _rounded(value), unit, aim, met, note, _all_rounded(runs))


def _all_rounded(runs: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(_rounded, runs))


def _rounded(value: float) -> float:
    return round(value, 3 if abs(value) < 10 else 1)
