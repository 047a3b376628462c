"""Ids that two files, or two rows, may mean by one thing and write in two ways. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from models.schemas import MAX_ID_CHARS

_LIKE_A_DECIMAL: Final = re.compile(r"([+-]?\d+)(?:\.0*|,0{1,2})", re.ASCII)
_DECIMAL_ID: Final = "an id written as a decimal number"
_SHORTENED: Final = re.compile(r"\d(?:[.,]\d*)?[eE]\+\d+", re.ASCII)
_SHORTENED_ID: Final = "an id that a spreadsheet has shortened"
_BLANK_ID: Final = "an id with blanks around it"
# Signs of no width; the last two belong to the spelling of some scripts and of emoji.
_INVISIBLE: Final = "\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
_HIDDEN: Final = re.compile(f"[{_INVISIBLE}]")
_JOINING: Final = re.compile("[\u200c\u200d\ufe00-\ufe0f]")
_HIDDEN_ID: Final = "an id with characters that do not show"
_NUMBER: Final = re.compile(r"([+-]?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d{1,9}))?", re.ASCII)
_GROUPED: Final = re.compile(
    r"([+-]?\d{1,3}([ .,'\u2019_])\d{3}(?:\2\d{3})*)(?:[.,](\d*))?", re.ASCII
)
_GROUP_MARKS: Final = re.compile("[ .,'\u2019_]")
_SIGNS: Final = str.maketrans({"\u2212": "-", "\u066b": ".", "\u066c": ","})
_TWO_NUMBERS: Final = "two spellings of one number"
_TWO_TEXTS: Final = "two spellings of one id"
_MOST: Final = 500_000  # of a column, about 80 MB; those that come later go unchecked


class Spellings:
    """How the ids of one column have been spelled so far: their numbers, and unusual letters."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._first: dict[str, str] = {}  # number or plain text → how it was spelled first

    def doubt(self, said: str) -> tuple[str, str] | None:
        """What is doubtful about this id, and what else it may mean."""
        if said != (bare := said.strip()):
            return _BLANK_ID, self._another(repr(said), repr(bare))
        if not said.isascii() and said != (seen := _HIDDEN.sub("", said)):
            return _HIDDEN_ID, self._another(ascii(said), ascii(seen))
        plain = _plain(said)
        what, other = self._before(said, plain)
        if found := _LIKE_A_DECIMAL.fullmatch(plain):  # a table tool may have added the ".0"
            return _DECIMAL_ID, self._another(said, found[1])
        if _SHORTENED.fullmatch(plain):
            return _SHORTENED_ID, f"{self._column} {said} may stand for several ids"
        if what == _TWO_TEXTS and other != said:
            return what, self._another(ascii(said), ascii(other))
        return (what, self._another(said, other)) if other != said else None

    def _another(self, said: str, other: str) -> str:
        return f"{self._column} {said} is another than {self._column} {other}"

    def _before(self, said: str, plain: str) -> tuple[str, str]:
        """How what this id means was written first in the file, if in another way."""
        if numbers := _numbers_of(plain):
            return _TWO_NUMBERS, self._first_of(said, numbers)
        if said.isascii():
            return "", said
        return _TWO_TEXTS, plain if plain.isascii() else self._first_of(said, [plain])

    def _first_of(self, said: str, meanings: list[str]) -> str:
        first = self._first
        other = next((first[m] for m in meanings if first.get(m, said) != said), said)
        for meaning in meanings if len(first) < _MOST else ():
            first.setdefault(meaning, said)
        return other


def _plain(said: str) -> str:
    """The id as it looks, in the plainest letters and digits."""
    if said.isascii():
        return said.strip()
    seen = _JOINING.sub("", _HIDDEN.sub("", unicodedata.normalize("NFKC", said)))
    digits = (str(unicodedata.decimal(sign, sign)) for sign in seen.translate(_SIGNS))
    return "".join(digits).strip()


def _numbers_of(plain: str) -> list[str]:
    """The numbers that an id may be: 1.234 and 1234 for 1,234; none for most ids."""
    if plain.isdecimal() and plain[0] != "0":  # nearly all that are numbers
        return [plain]
    if not plain[:1].isdecimal() and plain[:1] not in ("+", "-"):
        return []
    spelled = [plain]
    if "." not in plain and plain.count(",") == 1:
        spelled.append(plain.replace(",", "."))
    if found := _GROUPED.fullmatch(plain):
        spelled.append(f"{_GROUP_MARKS.sub('', found[1])}.{found[3] or ''}")
    return [number for one in spelled if (number := _number_of(one)) is not None]


def _number_of(plain: str) -> str | None:
    """The number that an id is, in one spelling for 77, 077, +77, 77.0 and 7.7e1: 77."""
    if (found := _NUMBER.fullmatch(plain)) is None:
        return None
    sign, whole, fraction, exponent = found.groups(default="")
    written = (whole + fraction).lstrip("0")
    digits = written.rstrip("0")
    shift = int(exponent or 0) - len(fraction) + len(written) - len(digits)
    if not digits:
        return "0"
    short = 0 <= shift <= MAX_ID_CHARS
    return f"{sign.strip('+')}{digits}{'0' * shift if short else f'e{shift}'}"
