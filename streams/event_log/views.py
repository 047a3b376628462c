"""The log as DuckDB views, made from the manifests' file lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa

from models.errors import EventLogError
from streams.event_log.columns import LOGGED_TOPICS, NESTED, SCHEMAS, VIEW_OF
from streams.event_log.segments import SegmentLog
from streams.event_log.wishes import WISHES

_SQL_TYPES: Final = {
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.list_(pa.string()): "VARCHAR[]",
}


def connect_views(folder: Path) -> Any:
    """A DuckDB connection with one view per logged topic, as the log is now.

    Views: interactions, items, edits, requests, profiles, recommendations, releases; columns
    are those of streams/event_log/columns.py, nested fields are JSON. A topic without a log
    gives an empty view. Beside them are `forgotten` and `remembered` (streams/event_log/wishes.py).
    Replaced segments are deleted some minutes after compaction, so connect again rather than keep
    a connection.
    """
    import duckdb

    log = SegmentLog(folder)
    connection = duckdb.connect()
    for topic in LOGGED_TOPICS:
        connection.execute(_view(topic, segment_files(log, topic)))
    for view in WISHES:
        connection.execute(view)
    return connection


class Forgotten(NamedTuple):
    """A user's last wish; epoch ms."""

    taken: int  # by Kafka
    until: int  # event time


def forgotten_users(folder: Path) -> dict[str, Forgotten]:
    """User → what they asked to be forgotten. Raises EventLogError if the log cannot be read."""
    import duckdb

    try:
        with connect_views(folder) as connection:
            rows = connection.execute("SELECT user_id, taken, until FROM forgotten").fetchall()
    except duckdb.Error as error:
        raise EventLogError(f"the event log at {folder} cannot be queried: {error}") from error
    return {user_id: Forgotten(taken, until) for user_id, taken, until in rows}


def segment_files(log: SegmentLog, topic: str) -> list[str]:
    """Paths of all segments that count, by partition and offset."""
    return [
        str((log.partition_folder(topic, partition) / segment.file).absolute())
        for partition in log.partitions(topic)
        for segment in log.segments(topic, partition)
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
