"""A file → messages ready to be sent, and the report of what was left out. No broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from models.errors import ImportFailed
from models.schemas import Interaction, Item
from streams.codec import MAX_VALUE_BYTES
from streams.importers.cells import CellOptions, Layout
from streams.importers.dates import order_of
from streams.importers.layouts import fitting, format_named, layout_of
from streams.importers.readers import open_table
from streams.importers.report import ImportReport
from streams.importers.rows import FileRow, Kind, SourceTable, Unusable
from streams.importers.spellings import Spellings
from streams.importers.values import has_decimal_points

_LOST_ROW: Final = "a quoted text that holds whole rows"


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
    report: ImportReport
    fraction: Callable[[], float]


def survey(
    path: Path,
    kind: Kind,
    format_name: str,
    encoding: str | None = None,
    limit: int | None = None,
    reading: CellOptions | None = None,
) -> Survey:
    """Open a file as what it claims to be; at most the first `limit` rows. Raises ImportFailed."""
    reading = reading or CellOptions()
    format_ = format_named(format_name)
    dat_columns = format_.dat_columns[kind] if format_.dat_columns else None
    fits = partial(fitting, format_.layouts[kind])

    def opened(*only: str) -> SourceTable:
        enough = bool if only else lambda columns: fits(columns) is not None
        return open_table(path, encoding, dat_columns, only or None, enough)

    @cache
    def decimal_points() -> bool:
        again = opened(*layout.figures())
        cells = (cell for _, cell in _cells(again, *layout.figures()))
        return has_decimal_points(cells, again.separator)

    table = opened()
    layout = layout_of(table, kind, format_name)
    reading = replace(reading, decimal_points=decimal_points)
    if layout.local_dates and reading.dates is None:
        cells = _cells(opened(layout.local_dates), layout.local_dates)
        reading = replace(reading, dates=order_of(path, cells))
    report = ImportReport(path)
    messages = prepared(islice(table.rows, limit), layout, report, reading)
    return Survey(messages, report, table.fraction)


def _cells(table: SourceTable, *columns: str) -> Iterator[tuple[int, Any]]:
    """These columns' cells, as far as the file can be read: the import will say how far that is."""
    try:
        for row in table.rows:
            if row.values is not None:
                yield from ((row.line, row.values.get(column)) for column in columns)
    except ImportFailed:
        return


def prepared(
    rows: Iterator[FileRow],
    layout: Layout,
    report: ImportReport,
    reading: CellOptions | None = None,
) -> Iterator[Ready]:
    """Adapt each row; yield the usable ones, report all."""
    without: list[tuple[str, str]] = []  # columns that the row goes without
    spellings = {name: Spellings(name) for name in ("item_id", "user_id")}
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
        report.accept(row.line, _in_words(adapted), message.key, message.event_time)
        for column, why in without:
            report.leave_out(row.line, column, why)
        _doubt_ids(adapted, row.line, report, spellings)
        if row.within:
            _doubt_quotes(row, layout, reading, report)
        yield message


def _doubt_ids(
    message: Item | Interaction, line: int, report: ImportReport, spellings: Mapping[str, Spellings]
) -> None:
    for name, seen in spellings.items():
        if (said := getattr(message, name, "")) and (doubt := seen.doubt(said)):
            report.doubt(line, *doubt)


def _doubt_quotes(
    row: FileRow, layout: Layout, reading: CellOptions | None, report: ImportReport
) -> None:
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
