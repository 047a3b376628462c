"""The log as DuckDB views, made from the manifests' file lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa

from models.errors import EventLogError
from streams.event_log.columns import LOGGED_TOPICS, NESTED, SCHEMAS, VIEW_OF
from streams.event_log.repair import inspected
from streams.event_log.segments import SegmentLog
from streams.event_log.wishes import wish_views

_SQL_TYPES: Final = {
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.list_(pa.string()): "VARCHAR[]",
}


def connect_views(folder: Path, weights: Mapping[str, float]) -> Any:
    """A DuckDB connection with one view per logged topic, as the log is now.

    Views: interactions, items, edits, requests, profiles, recommendations, releases; columns
    are those of streams/event_log/columns.py, nested fields are JSON. A topic without a log
    gives an empty view. Beside them are `forgotten` and `remembered` (streams/event_log/wishes.py),
    which go by `weights`, those of the settings' windows.
    Segments that are gone, cut off or set apart are left out, with a warning. Replaced segments
    are deleted some minutes after compaction, so connect again rather than keep a connection.
    """
    import duckdb

    log = SegmentLog(folder, skip_damaged=True)
    connection = duckdb.connect()
    with answered(folder):  # making a view reads the footers
        for topic in LOGGED_TOPICS:
            connection.execute(_view(topic, segment_files(log, topic)))
        for view in wish_views(weights):
            connection.execute(view)
    return connection


class Forgotten(NamedTuple):
    """A user's last wish; epoch ms."""

    taken: int  # by Kafka
    until: int  # event time


def forgotten_users(folder: Path, weights: Mapping[str, float]) -> dict[str, Forgotten]:
    """User → what they asked to be forgotten. Raises EventLogError if the log cannot be read."""
    with answered(folder), connect_views(folder, weights) as connection:
        rows = connection.execute("SELECT user_id, taken, until FROM forgotten").fetchall()
    return {user_id: Forgotten(taken, until) for user_id, taken, until in rows}


@contextmanager
def answered(folder: Path) -> Iterator[None]:
    """For a block that asks a connection: raises EventLogError where DuckDB gives no answer.

    Where that is because of a damaged segment, it is named.
    """
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        for broken in _broken(folder):
            raise broken from error
        problem = " ".join(str(error).split())
        raise EventLogError(f"the query cannot be answered: {problem}") from error


def _broken(folder: Path) -> Iterator[EventLogError]:
    log = SegmentLog(folder, skip_damaged=True)
    for topic in LOGGED_TOPICS:
        for partition in log.partitions(topic):
            yield from inspected(log.partition_folder(topic, partition))


def segment_files(log: SegmentLog, topic: str) -> list[str]:
    """Paths of all segments that count and are whole, by partition and offset."""
    return [
        str(path.absolute())
        for partition in log.partitions(topic)
        for path in log.readable(topic, partition)
    ]


def _view(topic: str, files: list[str]) -> str:
    columns = ", ".join(
        f'NULL::{_SQL_TYPES[field.type]} AS "{field.name}"' for field in SCHEMAS[topic]
    )
    source = f"SELECT {columns} WHERE false"
    if files:  # the empty part gives older segments the columns that they lack
        listed = ", ".join(f"'{file.replace(chr(39), chr(39) * 2)}'" for file in files)
        parquet = f"SELECT * FROM read_parquet([{listed}], union_by_name = true)"
        source = f"{source} UNION ALL BY NAME {parquet}"
    nested = "".join(f", {_json(name)}" for name in NESTED[topic])
    return f'CREATE VIEW "{VIEW_OF[topic]}" AS SELECT *{nested} FROM ({source})'


def _json(name: str) -> str:
    text = "CASE WHEN status = 'ok' THEN decode(value) END"
    return f"""({text})::JSON -> '$.{name}' AS "{name}\""""
