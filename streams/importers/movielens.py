"""Format `movielens`: ratings.csv and movies.csv, or ratings.dat and movies.dat. Pure.

Times are epoch seconds; genres are separated by `|`; .dat files have no header, `::` between
fields, and latin-1 text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from models.identity import digest
from models.schemas import Interaction, Item
from streams.importers.cells import Layout
from streams.importers.rows import Adapted
from streams.importers.values import build, missing, seconds_to_ms, text

RATING_COLUMNS: Final = ("userId", "movieId", "rating", "timestamp")
MOVIE_COLUMNS: Final = ("movieId", "title", "genres")
_NO_GENRES: Final = "(no genres listed)"


def rating(values: Mapping[str, Any]) -> Adapted:
    """One rating."""
    absent = missing(values, *RATING_COLUMNS)
    if absent:
        return absent
    user_id, item_id, timestamp = values["userId"], values["movieId"], values["timestamp"]
    return build(
        Interaction,
        event_id=digest("movielens", user_id, item_id, timestamp),
        user_id=user_id,
        item_id=item_id,
        type="rating",
        timestamp=timestamp,
        rating=values["rating"],
    )


def movie(values: Mapping[str, Any]) -> Adapted:
    """One movie → an item whose categories are its genres."""
    absent = missing(values, "movieId", "title")
    if absent:
        return absent
    return build(
        Item,
        item_id=values["movieId"],
        title=values["title"],
        categories=tuple(values.get("genres") or ()),
    )


def _genres(written: Any) -> list[str]:
    genres = text(written) or _NO_GENRES
    return [] if genres == _NO_GENRES else genres.split("|")


ITEM_LAYOUTS: Final = (
    Layout(
        ("movieId", "title"),
        lambda: movie,
        ids=("movieId",),
        texts={"title": text, "genres": _genres},
    ),
)
INTERACTION_LAYOUTS: Final = (
    Layout(
        RATING_COLUMNS,
        lambda: rating,
        ids=("userId", "movieId"),
        times={"timestamp": seconds_to_ms},
        numbers=("rating",),
    ),
)
