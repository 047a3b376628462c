"""One SQL query over the log that can only read, whatever it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from models.errors import EventLogError
from streams.event_log.views import answered, connect_views

FETCH_ROWS: Final = 1_000
# In DuckDB's own tree of a query: WITH x AS (COPY …), and SQL hidden in a string.
_WRITES: Final = re.compile(r'"type":"(?P<verb>[A-Z]+)_QUERY_NODE"')
_HIDDEN: Final = re.compile(r'"function_name":"query(_table)?"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Columns and the rows, streamed."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def ask(folder: Path, sql: str, weights: Mapping[str, float]) -> Iterator[QueryResult]:
    """Run one SELECT over the views of the log in `folder`.

    Raises EventLogError if it is anything else, or wrong. Files outside the log cannot be read.
    """
    with closing(connect_views(folder, weights)) as connection, answered(folder):
        _check_reads_only(connection, sql)
        _confine(connection, folder)
        cursor = connection.execute(sql)
        yield QueryResult(tuple(column[0] for column in cursor.description), _rows(cursor))


def _check_reads_only(connection: Any, sql: str) -> None:
    (tree,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    if tree.startswith('{"error":true'):
        problem = orjson.loads(tree)
        if problem["error_type"] == "not implemented":
            raise EventLogError("the event log is only read here: one SELECT, please")
        raise EventLogError(f"the query cannot be run: {problem['error_message']}")
    if tree.count('"named_param_map"') != 1:
        raise EventLogError("one query at a time, please")
    if found := _WRITES.search(tree):
        raise EventLogError(f"the event log is only read here; {found['verb']} is refused")
    if _HIDDEN.search(tree):
        raise EventLogError("the functions query and query_table are refused; write the query out")


def _confine(connection: Any, folder: Path) -> None:
    connection.execute("SET allowed_directories = [?]", [str(folder.absolute())])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _rows(cursor: Any) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(FETCH_ROWS):
        yield from rows
