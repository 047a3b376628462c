"""The event log → positive evidence for co-occurrence, one row per user and item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.cooccurrence_build import Evidence
from models.schemas import Interaction, InteractionType
from models.settings import WindowSettings
from streams.event_log import SegmentLog, answered, connect_views
from streams.windows import entry_of, split_by_liking

_DISLIKES: Final = ("cancel", "hide")
Row = tuple[str, str, float, int]  # user, item, strongest weight, newest time (epoch ms)

_EVENTS: Final = """
CREATE TEMP TABLE events AS
SELECT user_id, item_id, type, timestamp, event_id, rating, {weight} AS weight,
       type IN {dislikes} OR (type = 'rating' AND rating <= {low_rating}) AS disliked
FROM interactions
WHERE status = 'ok' AND {weight} > 0
QUALIFY row_number() OVER (PARTITION BY user_id, event_id ORDER BY "offset") = 1
"""
_MIXED: Final = "SELECT user_id, item_id FROM events GROUP BY ALL HAVING bool_or(disliked)"
_LIKED: Final = f"""
SELECT user_id, item_id, max(weight), max(timestamp) FROM events
WHERE (user_id, item_id) NOT IN ({_MIXED}) GROUP BY ALL
"""
_JUDGED: Final = f"""
SELECT user_id, item_id, type, timestamp, event_id, rating FROM events
WHERE (user_id, item_id) IN ({_MIXED}) ORDER BY user_id, item_id, timestamp, event_id
"""


def logged_until(folder: Path) -> tuple[int, ...]:
    """Next offset of each logged partition of `interactions`: changes when there is news."""
    log = SegmentLog(folder)
    partitions = log.partitions("interactions")
    return tuple(log.next_offset("interactions", partition) for partition in partitions)


def read_evidence(folder: Path, spec: WindowSettings) -> Evidence:
    """What users like, by the log: repeated events once, cancelled purchases and dislikes not.

    Raises EventLogError when the log cannot be read.
    """
    with answered(folder), connect_views(folder) as connection:
        connection.execute("SET threads = 1")  # beside the tracker, on small machines
        connection.execute(_events_query(spec))
        liked = connection.execute(_LIKED).fetchall()
        judged = connection.execute(_JUDGED).fetchall()
    return _numbered([*liked, *_still_liked(judged, spec)])


def _events_query(spec: WindowSettings) -> str:
    cases = " ".join(f"WHEN '{kind}' THEN {weight}" for kind, weight in spec.weights.items())
    return _EVENTS.format(
        weight=f"CASE type {cases} ELSE 0 END", dislikes=_DISLIKES, low_rating=spec.low_rating
    )


def _still_liked(judged: Iterable[tuple[Any, ...]], spec: WindowSettings) -> Iterator[Row]:
    """Of pairs with a dislike somewhere, those with evidence left; by the histories' own rule."""
    for (user, item), events in groupby(judged, key=lambda row: (row[0], row[1])):
        liked, _ = split_by_liking(tuple(entry_of(_interaction(row), 0) for row in events), spec)
        if liked:
            weight = max(spec.weights[entry.type.value] for entry in liked)
            yield user, item, weight, max(entry.timestamp for entry in liked)


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


def _numbered(rows: list[Row]) -> Evidence:
    users, items, weights, timestamps = zip(*rows, strict=True) if rows else ((), (), (), ())
    ids, item_numbers = np.unique(np.array(items, object), return_inverse=True)
    _, user_numbers = np.unique(np.array(users, object), return_inverse=True)
    return Evidence(
        ids=tuple(ids),
        users=user_numbers.astype(np.int64),
        items=item_numbers.astype(np.int64),
        weights=np.array(weights, np.float64),
        timestamps=np.array(timestamps, np.int64),
    )
