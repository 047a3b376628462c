"""Numbers like 1.299: decimals or thousands, decided once for a whole file. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

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
