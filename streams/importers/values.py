"""Cells of foreign files → the types of our schemas. Pure; `None` means absent.

A cell that cannot be read for certain raises ValueError: nothing is guessed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

import orjson
from pydantic import ValidationError

from models.schemas import Interaction, Item
from streams.importers.rows import ShortFloat, UnreadableCell, Unusable

INVALID: Final = "invalid value"
MISSING: Final = "missing value"

EXACT_BELOW: Final = 2**53  # from here on, two whole numbers can be one float
MOST: Final = 1e12  # as models.schemas.Finite
SHOWN_WHOLE: Final = 11  # digits of a whole number up to which spreadsheets show all of them
MAX_DIGITS: Final = 1_000  # of a whole number in JSON; Python refuses to read more than 4300

_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SHORTENED: Final = re.compile(
    r"[+-]?\d(?:[.,](?P<decimals>\d*))?[eE]\+(?P<exponent>\d{1,4})", re.ASCII
)
_CURRENCY: Final = (
    r"(?:(?:US|CA|AU|NZ|HK|[ACRS])?[$€£¥₹₩₽₺₪฿₫]|USD|EUR|GBP|JPY|CNY|INR|KRW|AUD|CAD|NZD|CHF|SEK"
    r"|NOK|DKK|PLN|CZK|HUF|BRL|MXN|SGD|HKD|TWD|THB|ZAR|TRY|ILS|AED|SAR)?"
)
_SPACE: Final = "[ \\t\u00a0\u2009\u202f]*"  # also the narrow ones that typesetters use
_PRICE: Final = re.compile(
    rf"(?:[Ff]rom )?{_SPACE}{_CURRENCY}{_SPACE}(?P<number>[\d.,]+){_SPACE}{_CURRENCY}", re.ASCII
)
_AMOUNT: Final = re.compile(r"\d{1,3}(?:,\d{3})+\.\d{1,2}|\d+|\d*\.\d+", re.ASCII)

M = TypeVar("M", Item, Interaction)


def is_absent(value: Any, words: Collection[str] = ()) -> bool:
    """True for None, NaN, blank text and any of `words` (lower case): there is nothing."""
    if value is None:
        return True
    if isinstance(value, str):
        bare = value.strip()
        return not bare or (bool(words) and bare.lower() in words)
    return isinstance(value, float) and math.isnan(value)


def without_absent(value: Any, words: Collection[str]) -> Any:
    """A text, or a list of texts, less what is absent."""
    if isinstance(value, list | tuple):
        return [part for part in value if not is_absent(part, words)]
    return None if is_absent(value, words) else value


def from_json(written: str) -> Any:
    """JSON with every digit of whole numbers; NaN and numbers too large are floats.

    The cells decide what becomes of those. Raises ValueError.
    """
    try:
        values = orjson.loads(written)
    except ValueError:
        return _in_python(written)
    return _in_python(written) if _has_rounded(values) else values


def _in_python(written: str) -> Any:
    try:
        return json.loads(written, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _whole(digits: str) -> int | UnreadableCell:
    if len(digits) > MAX_DIGITS:
        return UnreadableCell(f"a number of {len(digits)} digits")
    return int(digits)


def _has_rounded(values: Any) -> bool:
    """Whether a float is among the values that may have been a whole number of over 64 bits."""
    left = [values]
    while left:
        value = left.pop()
        if type(value) is float and abs(value) >= EXACT_BELOW:
            return True
        if type(value) is dict:
            left.extend(value.values())
        elif type(value) is list:
            left.extend(value)
    return False


def identifier(value: Any, words: Collection[str] = ()) -> str | None:
    """An id as text; 13085.0 (a whole number that passed through a float column) is "13085".

    Raises ValueError on all but text and whole numbers, and on what may stand for several whole
    numbers: a float of fewer than 64 bits, 1.23457E+11 as spreadsheets show 123456789012.
    """
    if is_absent(value, words):
        return None
    if isinstance(value, str):
        _check_not_shown_short(value)
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"{_shown(value)}; ids are text or whole numbers")
    if isinstance(value, int):
        return str(value)
    _check_not_short(value, "ids as whole numbers or text")
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{value} is no whole number; ids are text or whole numbers")
    if isinstance(value, float) and abs(value) >= EXACT_BELOW:
        raise ValueError(f"{value!r} may stand for several whole numbers; write such ids as text")
    return str(int(value))


def _check_not_shown_short(said: str) -> None:
    """Raises ValueError for a whole number of which a spreadsheet shows the first digits alone."""
    found = _SHORTENED.fullmatch(said.strip())
    if found and int(found["exponent"]) >= max(SHOWN_WHOLE, len(found["decimals"] or "") + 1):
        raise ValueError(f"{said!r:.60}: a spreadsheet has shortened this id; write all digits")


def text(value: Any) -> str | None:
    """Text without surrounding blanks; numbers are text too. Raises ValueError on all else."""
    if is_absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"{_shown(value)} where text is expected")
    if not isinstance(value, str) and not math.isfinite(value):
        raise ValueError(f"{value} where text is expected")
    return str(value).strip()


def number(value: Any) -> float:
    """A number, in text as JSON writes it: 1299.5, -3, 1e5. Raises ValueError on all else."""
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value.strip()):
            raise ValueError(f"{value!r:.60} is not a number")
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"{_shown(value)} is not a number")
    with suppress(OverflowError):
        if abs(read := float(value)) <= MOST:
            return read
    raise ValueError(f"{value!s:.60} is not a number up to {MOST:g}")


def price(value: Any) -> float:
    """A price as shops print it: "$1,299.99", "from 14.99", "5 EUR", 5.

    Raises ValueError where it can be read in two ways (1,299 and 1.299: thousands or decimals?),
    is a range, or is not a price.
    """
    if not isinstance(value, str):
        if (read := number(value)) < 0:
            raise ValueError(f"{value!s:.60} is below 0, and no price")
        return read
    found = _PRICE.fullmatch(value.strip())
    amount = found["number"] if found else ""
    if not _AMOUNT.fullmatch(amount) or is_undecided(amount):
        raise ValueError(f"{value!r:.60} is not a price that can be read for certain")
    return number(amount.replace(",", ""))


def seconds_to_ms(value: Any) -> int:
    """Epoch seconds (number or text), or a datetime → epoch milliseconds. Raises ValueError."""
    if isinstance(value, datetime):
        return moment_to_ms(value)
    _check_not_short(value)
    if isinstance(value, str) and "e" in value.lower():
        raise ValueError(f"{value!r:.60}: a spreadsheet has shortened this time; write all digits")
    return round(number(value) * 1000)


def wire_time(value: Any) -> Any:
    """A time as our schemas read it; datetimes and whole floats as epoch milliseconds."""
    if isinstance(value, datetime):
        return moment_to_ms(value)
    _check_not_short(value)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{_shown(value)} is no time; write RFC 3339 or epoch milliseconds")
    return value


def _check_not_short(value: Any, instead: str = "times as whole numbers or datetimes") -> None:
    if isinstance(value, ShortFloat):
        raise ValueError(
            f"{value} may stand for several numbers: a column of floats of 16 or 32 bits rounds; "
            f"write {instead}"
        )


def moment_to_ms(moment: datetime) -> int:
    """A datetime → epoch milliseconds; without an offset it is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def missing(values: Mapping[str, Any], *columns: str) -> Unusable | None:
    """Which of the needed cells are empty, if any."""
    empty = [column for column in columns if is_absent(values.get(column))]
    return Unusable(MISSING, f"no {', '.join(empty)}") if empty else None


def build(schema: type[M], **fields: Any) -> M | Unusable:
    """The message, or what is wrong with the row."""
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        return schema.model_validate(present)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        lines = (f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
        return Unusable(INVALID, "; ".join(lines)[:300])


def _shown(value: Any) -> str:
    """What a cell holds, for a message: Parquet's odd values have long representations."""
    if isinstance(value, UnreadableCell):
        return str(value)
    if isinstance(value, int | float | Decimal | date):
        return f"{type(value).__name__} {value}"
    return "binary" if isinstance(value, bytes) else f"a {type(value).__name__}"


# Numbers like 1.299: decimals or thousands, decided once for a whole file. Pure.

# Around a number may stand a currency or a unit.
_AROUND: Final = r"[^\d.,]{0,8}"
_UNDECIDED: Final = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}", re.ASCII)
_GROUPS_OF_THREE: Final = re.compile(rf"{_AROUND}[1-9]\d{{0,2}}[.,]\d{{3}}{_AROUND}", re.ASCII)
_DECIMAL_COMMA: Final = re.compile(
    rf"{_AROUND}(?:[1-9]\d{{0,2}}(?:(?:\.\d{{3}})+,\d+|(?:\.\d{{3}}){{2,}})"
    rf"|[\d \u00a0\u202f']*,\d+){_AROUND}",
    re.ASCII,
)
_DECIMAL_POINT: Final = re.compile(
    rf"{_AROUND}(?:[1-9]\d{{0,2}}(?:(?:,\d{{3}})+\.\d+|(?:,\d{{3}}){{2,}})"
    rf"|[\d \u00a0\u202f']*\.\d+){_AROUND}",
    re.ASCII,
)


def is_undecided(cell: Any) -> bool:
    """True for text like 1.299, which is 1299 where people write decimals with a comma."""
    return isinstance(cell, str) and _UNDECIDED.fullmatch(cell.strip()) is not None


def has_decimal_points(cells: Iterable[Any], separator: str) -> bool:
    """Whether 1.299 is little more than 1 in a file with these numbers.

    It is if another number has a decimal point (9.99, 0.125) and none a decimal comma (9,99;
    1.299,00). Where no number shows either, JSON's point is meant, but not in a file separated
    by semicolons: programs write those where the comma is taken by decimals.
    """
    point = False
    for cell in cells:
        if not isinstance(cell, str) or _GROUPS_OF_THREE.fullmatch(cell):
            continue
        if _DECIMAL_COMMA.fullmatch(cell):
            return False
        point = point or _DECIMAL_POINT.fullmatch(cell) is not None
    return point or separator != ";"
