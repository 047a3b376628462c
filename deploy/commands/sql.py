"""`palate sql`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any

import orjson
import typer

from deploy.console import JsonOption, terminal
from models.settings import load_settings

VIEWS_SQL = """
    SELECT table_name AS view, string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns
    FROM information_schema.columns GROUP BY table_name ORDER BY table_name
"""


def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; without it the views are listed.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many rows (not with --json).")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Query the event log with DuckDB; it is only read. Times are epoch milliseconds.

    Columns named offset and partition are keywords of SQL: put them in double quotes.

    Example: palate sql "SELECT type, count(*) FROM interactions GROUP BY type"
    """
    from streams.event_log.query import ask

    settings = load_settings()
    with ask(settings.log_dir, query or VIEWS_SQL, settings.windows.weights) as answer:
        if as_json:
            _write_json(answer.columns, answer.rows)
        else:
            _print_table(answer.columns, answer.rows, limit)


def _write_json(columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
    """A JSON array, row by row."""
    opening = "[\n"
    for row in rows:
        line = orjson.dumps(
            dict(zip(columns, map(_plain, row), strict=True)), default=_number_or_text
        )
        sys.stdout.write(opening + line.decode())
        opening = ",\n"
    sys.stdout.write("\n]\n" if opening == ",\n" else "[]\n")


def _print_table(columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]], limit: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(*(escape(column) for column in columns))
    for row in islice(rows, limit):
        table.add_row(*("" if value is None else escape(str(_plain(value))) for value in row))
    console = terminal()
    console.print(table)
    if next(rows, None) is not None:
        console.print(f"the first {limit} rows; more with --limit or --json")


def _plain(value: Any) -> Any:
    """Bytes as text, or as hex where they are none."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _number_or_text(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else str(value)
