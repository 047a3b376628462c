"""A file → messages ready to be sent, and the report of what was left out. No broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from models.schemas import Interaction, Item
from streams.codec import MAX_VALUE_BYTES
from streams.importers.layouts import format_named, layout_of
from streams.importers.readers import open_table
from streams.importers.report import Report
from streams.importers.rows import Adapter, Kind, Row, Unusable


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
    path: Path, kind: Kind, format_name: str, encoding: str | None = None, limit: int | None = None
) -> Survey:
    """Open a file as what it claims to be; at most the first `limit` rows. Raises ImportFailed."""
    format_ = format_named(format_name)
    dat_columns = format_.dat_columns[kind] if format_.dat_columns else None
    table = open_table(
        path, encoding or format_.encoding, encoding or format_.dat_encoding, dat_columns
    )
    adapt = layout_of(table, kind, format_name).start()
    report = Report(path)
    messages = prepared(islice(table.rows, limit), adapt, report)
    return Survey(messages, report, table.fraction)


def prepared(rows: Iterator[Row], adapt: Adapter, report: Report) -> Iterator[Ready]:
    """Adapt each row; yield the usable ones, report all."""
    for number, row in enumerate(rows, start=1):
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
        yield message


def _message(row: int, message: Item | Interaction) -> Ready:
    if isinstance(message, Interaction):
        return Ready(row, message.user_id.encode(), message.to_json(), message.timestamp)
    return Ready(row, message.item_id.encode(), message.to_json(), None)


def _in_words(message: Item | Interaction) -> str:
    if isinstance(message, Interaction):
        return f"{message.user_id:.40} {message.type.value} {message.item_id:.40}"
    return f"{message.item_id:.40} {message.title:.80}"
