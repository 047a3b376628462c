"""The log as DuckDB views, made from the manifests' file lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa

from models.errors import EventLogError
from models.schemas import EARLIEST_MS, LATEST_MS
from streams.event_log.columns import LOGGED_TOPICS, NESTED, SCHEMAS, VIEW_OF
from streams.event_log.repair import inspected
from streams.event_log.segments import SegmentLog

_SQL_TYPES: Final = {
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.list_(pa.string()): "VARCHAR[]",
}


# What users asked to be forgotten, as views of the log: one rule for all who read it.
#
# An interaction is forgotten if Kafka had taken it when it took the wish, or if its event time is
# not after `until`: the wish's own event time, or that of the newest interaction which Kafka had
# taken before, whichever is later; a type of weight 0 (impressions), which histories do not keep,
# counts for nothing there. So what is sent again, and what comes late, stays forgotten, and what
# the user does afterwards counts: of a wish that is sent again the first is meant. A wish's event
# time is no later than Kafka's, if that is a time at all: of wishes that are refused today
# (`no_time`) old logs may hold some.
# `streams/tracker/reducer.py` holds the same rule for live state.

_FORGOTTEN: Final = """
CREATE VIEW forgotten AS
WITH timed AS (
    SELECT user_id, timestamp,
        CASE WHEN kafka_time >= {earliest} AND kafka_time < {latest} THEN kafka_time END
        AS received
    FROM edits WHERE status = 'ok' AND action = 'forget'
    QUALIFY row_number() OVER (PARTITION BY user_id, edit_id ORDER BY "offset") = 1
), wishes AS (
    SELECT user_id, coalesce(max(received), -1) AS taken, max(least(timestamp, received)) AS made
    FROM timed GROUP BY user_id
)
SELECT wishes.user_id, taken, greatest(made, max(interactions.timestamp)) AS until
FROM wishes LEFT JOIN interactions
  ON interactions.user_id = wishes.user_id AND interactions.status = 'ok' AND kafka_time <= taken
  AND NOT list_contains({unkept}::VARCHAR[], interactions.type)
GROUP BY wishes.user_id, taken, made
"""
_REMEMBERED: Final = """
CREATE VIEW remembered AS
SELECT interactions.* FROM interactions LEFT JOIN forgotten USING (user_id)
WHERE status = 'ok'
  AND (forgotten.user_id IS NULL OR (kafka_time > taken AND timestamp > until))
"""


def wish_views(weights: Mapping[str, float]) -> tuple[str, str]:
    """`forgotten` (user_id, taken, until; times in ms) and `remembered`, accepted interactions
    without theirs. `weights`: evidence by interaction type, as in the settings.
    """
    unkept = [kind for kind, weight in weights.items() if weight <= 0]
    forgotten = _FORGOTTEN.format(earliest=EARLIEST_MS, latest=LATEST_MS, unkept=unkept)
    return forgotten, _REMEMBERED


def connect_views(folder: Path, weights: Mapping[str, float]) -> Any:
    """A DuckDB connection with one view per logged topic, as the log is now.

    Views: interactions, items, edits, requests, profiles, recommendations, releases; columns
    are those of streams/event_log/columns.py, nested fields are JSON. A topic without a log
    gives an empty view. Beside them are `forgotten` and `remembered` (streams/event_log/views.py),
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
