"""The event log → positive evidence for co-occurrence, one row per user and item.

DuckDB does what grows with the log, within a limit of memory and beyond it in files of `scratch`;
what comes out of it lies in files too (`on_disk`). What users asked to be forgotten is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from models.ranking.cooccurrence_build import PositivePairs, on_disk
from models.schemas import Interaction, InteractionType
from models.settings import WindowSettings
from streams.event_log import SegmentLog, answered, connect_views
from streams.windows import entry_of, split_by_liking

_BATCH: Final = 100_000  # rows on their way at once
_READ: Final = ("interactions", "profile-edits")
_DISLIKES: Final = ("cancel", "hide")
EvidenceRow = tuple[str, str, float, int]  # user, item, strongest weight, newest time (epoch ms)
Until = tuple[tuple[int, ...], ...]

_EVENTS: Final = """
CREATE TABLE events AS
SELECT user_id, item_id, type, timestamp, event_id, rating, {weight} AS weight,
       type IN {dislikes} OR (type = 'rating' AND rating <= {low_rating}) AS disliked
FROM remembered
WHERE {weight} > 0
QUALIFY row_number() OVER (PARTITION BY user_id, event_id ORDER BY "offset") = 1
"""
_LIKES: Final = """
CREATE TABLE liked AS
SELECT user_id, item_id, max(weight) AS weight, max(timestamp) AS newest,
       bool_or(disliked) AS mixed
FROM events GROUP BY user_id, item_id HAVING NOT bool_and(disliked)
"""
_JUDGED: Final = """
SELECT user_id, item_id, type, timestamp, event_id, rating
FROM events SEMI JOIN (FROM liked WHERE mixed) USING (user_id, item_id)
ORDER BY user_id, item_id, timestamp, event_id
"""
_NUMBERS: Final = """
CREATE TABLE {kind}_numbers AS
SELECT {kind}_id, (row_number() OVER (ORDER BY {kind}_id) - 1)::INTEGER AS {kind}
FROM (SELECT DISTINCT {kind}_id FROM liked)
"""
_ROWS: Final = """
SELECT "user" AS users, item AS items, weight AS weights, newest AS timestamps
FROM liked JOIN user_numbers USING (user_id) JOIN item_numbers USING (item_id)
ORDER BY users, timestamps, items
"""
_KINDS: Final = {"users": "i4", "items": "i4", "weights": "f8", "timestamps": "i8"}


def logged_until(folder: Path) -> Until:
    """Next offsets of the logged partitions that evidence is read from: other ones are news."""
    log = SegmentLog(folder)
    return tuple(
        tuple(log.next_offset(topic, partition) for partition in log.partitions(topic))
        for topic in _READ
    )


def read_evidence(
    folder: Path, spec: WindowSettings, scratch: Path | None = None, memory_mb: int = 512
) -> PositivePairs:
    """What users like, by the log: repeated events once, cancelled purchases and dislikes not.

    Raises EventLogError when the log cannot be read, or `scratch` has no room.
    """
    with answered(folder), connect_views(folder, spec.weights) as connection:
        _confine(connection, scratch, memory_mb)
        connection.execute(_events_query(spec))
        connection.execute(_LIKES)
        _judge(connection, spec)
        connection.execute("DROP TABLE events")
        return _numbered(connection, scratch)


def _confine(connection: Any, scratch: Path | None, memory_mb: int) -> None:
    connection.execute("SET threads = 1")  # beside the tracker, on small machines
    connection.execute(f"SET memory_limit = '{memory_mb}MB'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    if scratch is not None:
        connection.execute(f"SET temp_directory = '{str(scratch).replace(chr(39), chr(39) * 2)}'")


def _events_query(spec: WindowSettings) -> str:
    cases = " ".join(f"WHEN '{kind}' THEN {weight}" for kind, weight in spec.weights.items())
    return _EVENTS.format(
        weight=f"CASE type {cases} ELSE 0 END", dislikes=_DISLIKES, low_rating=spec.low_rating
    )


def _judge(connection: Any, spec: WindowSettings) -> None:
    """Of pairs with a dislike among their events, keep what is still liked."""
    connection.execute("CREATE TABLE still_liked AS SELECT * EXCLUDE mixed FROM liked LIMIT 0")
    judged = _streamed(connection.cursor().execute(_JUDGED))
    for batch in _batches(_still_liked(judged, spec)):
        connection.register("batch", batch)
        connection.execute("INSERT INTO still_liked FROM batch")
        connection.unregister("batch")
    connection.execute("DELETE FROM liked WHERE mixed")
    connection.execute("INSERT INTO liked SELECT *, false FROM still_liked")


def _streamed(cursor: Any) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(_BATCH):
        yield from rows


def _still_liked(judged: Iterator[tuple[Any, ...]], spec: WindowSettings) -> Iterator[EvidenceRow]:
    """Those of these pairs with evidence left; by the histories' own rule."""
    for (user, item), events in groupby(judged, key=lambda row: (row[0], row[1])):
        liked, _ = split_by_liking(tuple(entry_of(_interaction(row), 0) for row in events), spec)
        if liked:
            weight = max(spec.weights[entry.type.value] for entry in liked)
            yield user, item, weight, max(entry.timestamp for entry in liked)


def _batches(rows: Iterator[EvidenceRow]) -> Iterator[pa.Table]:
    while batch := list(islice(rows, _BATCH)):
        columns = [pa.array(column) for column in zip(*batch, strict=True)]
        yield pa.table(columns, names=["user_id", "item_id", "weight", "newest"])


def _interaction(row: tuple[Any, ...]) -> Interaction:
    user, item, kind, timestamp, event_id, rating = row
    return Interaction.model_construct(
        event_id=event_id,
        user_id=user,
        item_id=item,
        type=InteractionType(kind),
        timestamp=timestamp,
        rating=rating,
    )


def _numbered(connection: Any, scratch: Path | None) -> PositivePairs:
    for kind in ("user", "item"):
        connection.execute(_NUMBERS.format(kind=kind))
    names = connection.execute("SELECT item_id FROM item_numbers ORDER BY item").fetchall()
    (rows,) = connection.execute("SELECT count(*) FROM liked").fetchone()
    columns = {name: on_disk(rows, kind, scratch) for name, kind in _KINDS.items()}
    start = 0
    for batch in connection.cursor().sql(_ROWS).to_arrow_reader(_BATCH):
        stop = start + batch.num_rows
        for name, column in columns.items():
            column[start:stop] = batch.column(name).to_numpy(zero_copy_only=False)
        start = stop
    return PositivePairs(ids=tuple(name for (name,) in names), **columns)
