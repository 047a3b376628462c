"""A file → messages ready to be sent, and the report of what was left out. No broker."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from models.errors import ImportFailed
from models.schemas import MAX_ID_CHARS, Interaction, Item
from streams.codec import MAX_VALUE_BYTES
from streams.importers.cells import Layout, Reading
from streams.importers.dates import order_of
from streams.importers.layouts import format_named, layout_of
from streams.importers.readers import open_table
from streams.importers.report import Report
from streams.importers.rows import Kind, Row, Table, Unusable

_LIKE_A_DECIMAL: Final = re.compile(r"[+-]?\d+\.0*", re.ASCII)
_DECIMAL_ID: Final = "an id written as a decimal number"
_SHORTENED: Final = re.compile(r"\d(?:\.\d*)?[eE]\+\d+", re.ASCII)
_SHORTENED_ID: Final = "an id that a spreadsheet has shortened"
_BLANK_ID: Final = "an id with blanks around it"
_NUMBER: Final = re.compile(r"([+-]?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d{1,9}))?", re.ASCII)
_TWO_SPELLINGS: Final = "two spellings of one number"
_MOST_NUMBERS: Final = 500_000  # of a column, about 80 MB; those that come later go unchecked
_LOST_ROW: Final = "a quoted text that holds whole rows"

Spellings = dict[str, dict[str, str]]  # column → number → how its id was spelled first


@dataclass(frozen=True, slots=True)
class Ready:
    """One message to send; `row` counts all rows of the file from 1, the unusable ones too."""

    row: int
    key: bytes
    value: bytes
    event_time: int | None  # ms; None for items


@dataclass(frozen=True, slots=True)
class Survey:
    """A file being read. Iterate `messages` to the end, then `report` is complete."""

    messages: Iterator[Ready]
    report: Report
    fraction: Callable[[], float]


def survey(
    path: Path,
    kind: Kind,
    format_name: str,
    encoding: str | None = None,
    limit: int | None = None,
    reading: Reading | None = None,
) -> Survey:
    """Open a file as what it claims to be; at most the first `limit` rows. Raises ImportFailed."""
    reading = reading or Reading()
    format_ = format_named(format_name)
    dat_columns = format_.dat_columns[kind] if format_.dat_columns else None

    def opened(only: str | None = None) -> Table:
        return open_table(path, encoding, dat_columns, only)

    table = opened()
    layout = layout_of(table, kind, format_name)
    if layout.local_dates and reading.dates is None:
        cells = _cells(opened(layout.local_dates), layout.local_dates)
        reading = replace(reading, dates=order_of(path, cells))
    report = Report(path)
    messages = prepared(islice(table.rows, limit), layout, report, reading)
    return Survey(messages, report, table.fraction)


def _cells(table: Table, column: str) -> Iterator[tuple[int, Any]]:
    """One column's cells, as far as the file can be read: the import will say how far that is."""
    try:
        for row in table.rows:
            if row.values is not None:
                yield row.line, row.values.get(column)
    except ImportFailed:
        return


def prepared(
    rows: Iterator[Row], layout: Layout, report: Report, reading: Reading | None = None
) -> Iterator[Ready]:
    """Adapt each row; yield the usable ones, report all."""
    without: list[tuple[str, str]] = []  # columns that the row goes without
    spellings: Spellings = {"item_id": {}, "user_id": {}}
    adapt = layout.start(reading, lambda column, why: without.append((column, why)))
    for number, row in enumerate(rows, start=1):
        report.rows = number
        without.clear()
        if row.values is None:
            report.reject(row.line, "unreadable row", row.problem)
            continue
        adapted = adapt(row.values)
        if isinstance(adapted, Unusable):
            report.reject(row.line, adapted.reason, adapted.detail)
            continue
        message = _message(number, adapted)
        if len(message.value) > MAX_VALUE_BYTES:
            report.reject(row.line, "too large", f"{len(message.value)} bytes")
            continue
        report.accept(row.line, _in_words(adapted), message.event_time)
        for column, why in without:
            report.leave_out(row.line, column, why)
        _doubt_ids(adapted, row.line, report, spellings)
        if row.within:
            _doubt_quotes(row, layout, reading, report)
        yield message


def _doubt_ids(
    message: Item | Interaction, line: int, report: Report, spellings: Spellings
) -> None:
    """What two files, or two rows, may mean by one thing and write in two ways."""
    for name, first in spellings.items():
        said = getattr(message, name, "")
        other = _spelled_before(said, first)
        if said != (bare := said.strip()):
            report.doubt(line, _BLANK_ID, f"{name} {said!r} is another than {name} {bare!r}")
        elif _LIKE_A_DECIMAL.fullmatch(said):  # a table tool may have added the ".0"
            whole = said.partition(".")[0]
            report.doubt(line, _DECIMAL_ID, f"{name} {said} is another than {name} {whole}")
        elif _SHORTENED.fullmatch(said):
            report.doubt(line, _SHORTENED_ID, f"{name} {said} may stand for several ids")
        elif other != said:
            report.doubt(line, _TWO_SPELLINGS, f"{name} {said} is another than {name} {other}")


def _spelled_before(said: str, first: dict[str, str]) -> str:
    """How the number that an id is was written first in the file; any other id as it is."""
    number = _number_of(said)
    if number is None:
        return said
    if number in first or len(first) >= _MOST_NUMBERS:
        return first.get(number, said)
    first[number] = said
    return said


def _number_of(said: str) -> str | None:
    """The number that an id is, in one spelling for 77, 077, +77, 77.0 and 7.7e1: 77."""
    if said.isdecimal() and said.isascii() and said[0] != "0":  # nearly all that are numbers
        return said
    if (found := _NUMBER.fullmatch(said)) is None:
        return None
    sign, whole, fraction, exponent = found.groups(default="")
    written = (whole + fraction).lstrip("0")
    digits = written.rstrip("0")
    shift = int(exponent or 0) - len(fraction) + len(written) - len(digits)
    if not digits:
        return "0"
    plain = 0 <= shift <= MAX_ID_CHARS
    return f"{sign.strip('+')}{digits}{'0' * shift if plain else f'e{shift}'}"


def _doubt_quotes(row: Row, layout: Layout, reading: Reading | None, report: Report) -> None:
    adapt = layout.start(reading)
    lost = sum(not isinstance(adapt(values), Unusable) for values in row.within)
    if lost:
        report.doubt(row.line, _LOST_ROW, f"{lost} of them; is a quote missing or too many?")


def _message(row: int, message: Item | Interaction) -> Ready:
    if isinstance(message, Interaction):
        return Ready(row, message.user_id.encode(), message.to_json(), message.timestamp)
    return Ready(row, message.item_id.encode(), message.to_json(), None)


def _in_words(message: Item | Interaction) -> str:
    if isinstance(message, Interaction):
        return f"{message.user_id:.40} {message.type.value} {message.item_id:.40}"
    return f"{message.item_id:.40} {message.title:.80}"
