"""How a layout's cells are read before its adapter sees them: ids, times, numbers, prices. Pure.

One place says what an id is and what a number is, for all formats. What a row needs and cannot
be read for certain makes the row unusable; what it can go without is left out, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from models.settings import ABSENT_WORDS
from streams.importers.dates import DateOrder, by_order
from streams.importers.rows import Adapted, Kind, RowAdapter, UnreadableCell, Unusable
from streams.importers.values import (
    INVALID,
    identifier,
    is_absent,
    is_undecided,
    number,
    without_absent,
)

UNUSABLE_ID: Final = "unusable id"

LeaveOut = Callable[[str, str], None]  # column, why its cell cannot be read


@dataclass(frozen=True, slots=True)
class CellOptions:
    """What settings and options say about the cells of a file."""

    absent: frozenset[str] = frozenset(ABSENT_WORDS)
    dates: DateOrder | None = None  # None: the file decides (`dates.order_of`)
    # Whether 1.299 is little more than 1; asked only if such a number comes.
    decimal_points: Callable[[], bool] = field(default=lambda: True, repr=False, compare=False)


def _unsaid(column: str, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """One shape of columns that a format is found in, and how its rows are read.

    `make` gives a fresh adapter per file: some count the lines of an invoice.
    """

    required: tuple[str, ...]
    make: Callable[[], RowAdapter]
    ids: tuple[str, ...]
    times: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    texts: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)  # or lists of texts
    optional: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)  # prices, brands
    decimal_ids: tuple[str, ...] = ()  # ids of whole numbers, which may be written 77.0
    local_dates: str | None = None  # column of times whose day and month the file puts in order

    def start(
        self, reading: CellOptions | None = None, leave_out: LeaveOut = _unsaid
    ) -> RowAdapter:
        """Row → message or why there is none; nothing in a row makes it raise.

        `leave_out` hears of each optional cell that the message goes without.
        """
        reading = reading or CellOptions()
        adapt, absent = self.make(), reading.absent
        needed = tuple(self._needed(reading).items())
        optional = {name: _certain(read, reading) for name, read in self.optional.items()}

        def read(values: Mapping[str, Any]) -> Adapted:
            cells = dict(values)
            try:
                for column in self.ids:
                    if (cell := cells.get(column)) is not None:
                        whole = _whole(cell) if column in self.decimal_ids else cell
                        cells[column] = identifier(whole, absent)
            except ValueError as error:
                return Unusable(UNUSABLE_ID, f"{column}: {error}")
            wrong = _read_needed(cells, needed, absent)
            _read_optional(cells, optional, absent, leave_out)
            adapted = _adapted(adapt, cells)
            invalid = isinstance(adapted, Unusable) and adapted.reason == INVALID
            return wrong if wrong and invalid else adapted

        return read

    def figures(self) -> tuple[str, ...]:
        """The columns in which numbers are read."""
        prices = (name for name, read in self.optional.items() if read is number)
        return (*self.numbers, *prices)

    def _needed(self, reading: CellOptions) -> dict[str, Callable[[Any], Any]]:
        needed = {**self.times, **dict.fromkeys(self.numbers, number), **self.texts}
        if self.local_dates:
            read = self.times[self.local_dates]
            needed[self.local_dates] = lambda cell: read(by_order(cell, reading.dates))
        return {name: _certain(read, reading) for name, read in needed.items()}


def _certain(read: Callable[[Any], Any], reading: CellOptions) -> Callable[[Any], Any]:
    """`number`, where the file tells thousands from decimals; anything else as it is."""
    if read is not number:
        return read

    def certain(cell: Any) -> float:
        if is_undecided(cell) and not reading.decimal_points():
            whole = cell.strip().replace(".", "")
            raise ValueError(f"{cell!r} may be {whole} here; write {whole} or {cell.strip()}0")
        return number(cell)

    return certain


def _whole(cell: Any) -> Any:
    return cell.strip().removesuffix(".0") if isinstance(cell, str) else cell


def _read_needed(
    cells: dict[str, Any],
    needed: Iterable[tuple[str, Callable[[Any], Any]]],
    absent: frozenset[str],
) -> Unusable | None:
    """Cells without which a row would mean something else."""
    wrong = None
    for column, read in needed:
        if (cell := cells.get(column)) is None:
            continue
        try:
            there = None if is_absent(cell, absent) else read(cell)
            cells[column] = without_absent(there, absent)
        except (ArithmeticError, TypeError, ValueError) as error:
            cells[column] = UnreadableCell(str(error))
            wrong = wrong or Unusable(INVALID, f"{column}: {error}")
    return wrong


def _read_optional(
    cells: dict[str, Any],
    optional: Mapping[str, Callable[[Any], Any]],
    absent: frozenset[str],
    leave_out: LeaveOut,
) -> None:
    for column, read in optional.items():
        if (cell := cells.get(column)) is None:
            continue
        try:
            there = None if is_absent(cell, absent) else read(cell)
            cells[column] = without_absent(there, absent)
        except ValueError as error:
            cells[column] = None
            leave_out(column, str(error))


def _adapted(adapt: RowAdapter, cells: Mapping[str, Any]) -> Adapted:
    try:
        return adapt(cells)
    except (ArithmeticError, TypeError, ValueError) as error:
        return Unusable(INVALID, str(error))


@dataclass(frozen=True, slots=True)
class Format:
    """A family of files: its layouts by kind, and the columns of its `::`-separated files."""

    layouts: Mapping[Kind, tuple[Layout, ...]]
    dat_columns: Mapping[Kind, tuple[str, ...]] | None = None
