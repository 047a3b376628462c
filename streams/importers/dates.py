"""Dates like 01/12/2010: day first or month first, decided once for a whole file. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from models.errors import ImportFailed

_WRITTEN: Final = re.compile(
    r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII
)


class DateOrder(StrEnum):
    """Which number of 01/12/2010 is the day; also the values of `--dates`."""

    DAY_FIRST = "day-first"
    MONTH_FIRST = "month-first"


_WAY_OUT: Final = (
    f"say which it is with --dates {DateOrder.DAY_FIRST} or --dates {DateOrder.MONTH_FIRST}"
)


def by_order(value: Any, order: DateOrder | None) -> Any:
    """01/12/2010 8:26 (also with - or .) as a datetime; any other cell as it is.

    Raises ValueError if there is no such day, or `order` is undecided and makes a difference.
    """
    found = _matched(value)
    if found is None:
        return value
    first, second, year = int(found[1]), int(found[3]), int(found[4])
    if order is None and first != second:
        no_day = f"{found[0]!r:.60}: there is no such day"
        raise ValueError(f"{_readings(found)}; {_WAY_OUT}" if _orders(found) else no_day)
    day, month = (first, second) if order is DateOrder.DAY_FIRST else (second, first)
    return datetime(year, month, day, int(found[5]), int(found[6]), int(found[7] or 0))


def order_of(path: Path, cells: Iterable[tuple[int, Any]]) -> DateOrder | None:
    """The one order that the (line, cell) of a file allow; None if nothing is to be decided.

    Raises ImportFailed naming both readings if they allow both orders, or neither.
    """
    first: dict[DateOrder | None, tuple[int, re.Match[str]]] = {}  # that shows this order
    for line, cell in cells:
        found = _matched(cell)
        if found and (orders := _orders(found)):
            first.setdefault(orders[0] if len(orders) == 1 else None, (line, found))
    match [order for order in DateOrder if order in first]:
        case [order]:
            return order
        case []:
            if not first:
                return None
            line, found = first[None]
            why = f"line {line}: {_readings(found)}, and no date of the file tells which"
        case _:
            (day_line, by_day), (month_line, by_month) = (first[order] for order in DateOrder)
            why = (
                f"line {day_line}: {by_day[0]} is written day first, but {by_month[0]} in line "
                f"{month_line} month first"
            )
    raise ImportFailed(f"{path}, {why}; {_WAY_OUT}")


def _matched(value: Any) -> re.Match[str] | None:
    return _WRITTEN.fullmatch(value.strip()) if isinstance(value, str) else None


def _orders(found: re.Match[str]) -> list[DateOrder]:
    """The orders in which there is such a day; none if both are the same."""
    first, second, year = int(found[1]), int(found[3]), int(found[4])
    if first == second:
        return []
    days = {DateOrder.DAY_FIRST: (second, first), DateOrder.MONTH_FIRST: (first, second)}
    return [order for order, (month, day) in days.items() if _is_day(year, month, day)]


def _is_day(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _readings(found: re.Match[str]) -> str:
    first, second, year = int(found[1]), int(found[3]), int(found[4])
    return (
        f"{found[0]} is {year:04}-{second:02}-{first:02} if the day stands first and "
        f"{year:04}-{first:02}-{second:02} if the month does"
    )
