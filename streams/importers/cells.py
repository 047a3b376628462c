"""How a layout's cells are read before its adapter sees them: ids, times, numbers, prices. Pure.

One place says what an id is and what a number is, for all formats. What a row needs and cannot
be read for certain makes the row unusable; a price only is left out, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from models.settings import ABSENT_WORDS
from streams.importers.dates import DateOrder, by_order
from streams.importers.rows import Adapted, Adapter, Kind, Unreadable, Unusable
from streams.importers.values import INVALID, identifier, is_absent, number

UNUSABLE_ID: Final = "unusable id"

LeaveOut = Callable[[str, str], None]  # column, why its cell cannot be read


@dataclass(frozen=True, slots=True)
class Reading:
    """What settings and options say about the cells of a file."""

    absent: frozenset[str] = frozenset(ABSENT_WORDS)
    dates: DateOrder | None = None  # None: the file decides (`dates.order_of`)


def _unsaid(column: str, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """One shape of columns that a format is found in, and how its rows are read.

    `make` gives a fresh adapter per file: some count the lines of an invoice.
    """

    required: tuple[str, ...]
    make: Callable[[], Adapter]
    ids: tuple[str, ...]
    times: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    prices: Mapping[str, Callable[[Any], float]] = field(default_factory=dict)
    local_dates: str | None = None  # column of times whose day and month the file puts in order

    def start(self, reading: Reading | None = None, leave_out: LeaveOut = _unsaid) -> Adapter:
        """Row → message or why there is none; nothing in a row makes it raise.

        `leave_out` hears of each price that the message goes without.
        """
        adapt, absent = self.make(), (reading or Reading()).absent
        times = dict(self.times)
        if self.local_dates:
            times[self.local_dates] = self._in_order(reading.dates if reading else None)
        figures = (*times.items(), *((column, number) for column in self.numbers))

        def read(values: Mapping[str, Any]) -> Adapted:
            cells = dict(values)
            try:
                for column in self.ids:
                    if (cell := cells.get(column)) is not None:
                        cells[column] = identifier(cell, absent)
            except ValueError as error:
                return Unusable(UNUSABLE_ID, f"{column}: {error}")
            wrong = _read_figures(cells, figures, absent)
            if self.prices:
                _read_prices(cells, self.prices, absent, leave_out)
            adapted = _adapted(adapt, cells)
            invalid = isinstance(adapted, Unusable) and adapted.reason == INVALID
            return wrong if wrong and invalid else adapted

        return read

    def _in_order(self, order: DateOrder | None) -> Callable[[Any], Any]:
        read = self.times[self.local_dates or ""]
        return lambda cell: read(by_order(cell, order))


def _read_figures(
    cells: dict[str, Any],
    figures: Iterable[tuple[str, Callable[[Any], Any]]],
    absent: frozenset[str],
) -> Unusable | None:
    """Times and numbers, without which a row would mean something else."""
    wrong = None
    for column, read in figures:
        if (cell := cells.get(column)) is None:
            continue
        try:
            cells[column] = None if is_absent(cell, absent) else read(cell)
        except (ArithmeticError, TypeError, ValueError) as error:
            cells[column] = Unreadable(str(error))
            wrong = wrong or Unusable(INVALID, f"{column}: {error}")
    return wrong


def _read_prices(
    cells: dict[str, Any],
    prices: Mapping[str, Callable[[Any], float]],
    absent: frozenset[str],
    leave_out: LeaveOut,
) -> None:
    for column, read in prices.items():
        if (cell := cells.get(column)) is None:
            continue
        try:
            cells[column] = None if is_absent(cell, absent) else read(cell)
        except ValueError as error:
            cells[column] = None
            leave_out(column, str(error))


def _adapted(adapt: Adapter, cells: Mapping[str, Any]) -> Adapted:
    try:
        return adapt(cells)
    except (ArithmeticError, TypeError, ValueError) as error:
        return Unusable(INVALID, str(error))


@dataclass(frozen=True, slots=True)
class Format:
    """A family of files: its layouts by kind, and the columns of its `::`-separated files."""

    layouts: Mapping[Kind, tuple[Layout, ...]]
    dat_columns: Mapping[Kind, tuple[str, ...]] | None = None
