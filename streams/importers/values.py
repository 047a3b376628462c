"""Cells of foreign files → the types of our schemas. Pure; `None` means absent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from models.schemas import Interaction, Item
from streams.importers.rows import Unusable

INVALID = "invalid value"
MISSING = "missing value"

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ABSENT_WORDS = frozenset({"", "none", "null", "nan"})

M = TypeVar("M", Item, Interaction)


def is_absent(value: Any) -> bool:
    """True for None, NaN and blank text: how tables write that there is nothing."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def identifier(value: Any) -> str | None:
    """An id as text; 13085.0 (a whole number that passed through a float column) is "13085"."""
    if is_absent(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def customer_number(value: Any) -> str | None:
    """As `identifier`, and "13085.0" in text loses its fraction too."""
    name = identifier(value)
    return name.strip().removesuffix(".0") if name else None


def text(value: Any) -> str | None:
    """Text without surrounding blanks."""
    return None if is_absent(value) else str(value).strip()


def number(value: Any) -> float | None:
    """A number. Raises ValueError on text that is none."""
    return None if is_absent(value) else float(value)


def price(value: Any) -> float | None:
    """The first number in "$1,299.99", "from 14.99" or 5; None where there is none."""
    if is_absent(value) or str(value).strip().lower() in _ABSENT_WORDS:
        return None
    if isinstance(value, int | float):
        return float(value)
    found = _NUMBER.search(str(value))
    return float(found.group().replace(",", "")) if found else None


def seconds_to_ms(value: Any) -> int:
    """Epoch seconds (number or text) → epoch milliseconds. Raises ValueError."""
    return round(float(value) * 1000)


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
