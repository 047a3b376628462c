"""Format `movielens`: ratings.csv and movies.csv, or ratings.dat and movies.dat. Pure.

Times are epoch seconds; genres are separated by `|`; .dat files have no header, `::` between
fields, and latin-1 text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from models.identity import digest
from models.schemas import Interaction, Item
from streams.importers.rows import Adapted, Layout, Unusable
from streams.importers.values import (
    INVALID,
    build,
    identifier,
    missing,
    number,
    seconds_to_ms,
    text,
)

RATING_COLUMNS: Final = ("userId", "movieId", "rating", "timestamp")
MOVIE_COLUMNS: Final = ("movieId", "title", "genres")
_NO_GENRES: Final = "(no genres listed)"


def rating(values: Mapping[str, Any]) -> Adapted:
    """One rating."""
    absent = missing(values, *RATING_COLUMNS)
    if absent:
        return absent
    try:
        timestamp, stars = seconds_to_ms(values["timestamp"]), number(values["rating"])
    except (ValueError, OverflowError) as error:
        return Unusable(INVALID, str(error))
    user_id, item_id = identifier(values["userId"]), identifier(values["movieId"])
    return build(
        Interaction,
        event_id=digest("movielens", user_id, item_id, timestamp),
        user_id=user_id,
        item_id=item_id,
        type="rating",
        timestamp=timestamp,
        rating=stars,
    )


def movie(values: Mapping[str, Any]) -> Adapted:
    """One movie → an item whose categories are its genres."""
    absent = missing(values, "movieId", "title")
    if absent:
        return absent
    genres = text(values.get("genres")) or _NO_GENRES
    return build(
        Item,
        item_id=identifier(values["movieId"]),
        title=text(values["title"]),
        categories=() if genres == _NO_GENRES else tuple(genres.split("|")),
    )


ITEM_LAYOUTS: Final = (Layout(MOVIE_COLUMNS, lambda: movie),)
INTERACTION_LAYOUTS: Final = (Layout(RATING_COLUMNS, lambda: rating),)
