"""What ranking is asked of a history: by the tracker for a list, by training to measure one."""

from __future__ import annotations

from typing import Final

from models.ranking.queries import Query, Recent
from models.settings import WindowSettings
from streams.windows import History, split_by_liking

_LOOKED_AT: Final = 100  # newest positives among which ranking finds its distinct recent items


def query_of(user_id: str, history: History, spec: WindowSettings) -> Query:
    """A user's query without a profile: recent positives, and what the history leaves out."""
    liked, avoided = split_by_liking(history, spec)
    newest = liked[: -_LOOKED_AT - 1 : -1]
    return Query(
        user_id=user_id,
        recent=[
            Recent(entry.item_id, spec.weights[entry.type.value], entry.event_id, entry.timestamp)
            for entry in newest
        ],
        seen=frozenset(entry.item_id for entry in liked),
        hidden=frozenset(entry.item_id for entry in avoided),
    )
