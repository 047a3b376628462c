"""Random order and popularity."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.ranking.recency import reached, recency
from streams.windows import DAY_MS, split_by_liking
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.data.sources import Events
from trainer.evaluation.systems import ScoreMatrix


class RandomSystem:
    """A seeded random order per session, the same in any batch."""

    name = "random"

    def __init__(self, items: int, seed: int) -> None:
        self._items, self._seed = items, seed

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        """Uniform in 0..1."""
        return np.stack([self._row(session) for session in sessions])

    def _row(self, session: Session) -> NDArray[np.float32]:
        user = zlib.crc32(session.user_id.encode())
        random = np.random.default_rng((self._seed, user, session.as_of))
        return random.random(self._items, np.float32)


class PopularitySystem:
    """The items that most users had, the same for everybody."""

    def __init__(self, name: str, popularity: NDArray[np.floating]) -> None:
        self.name = name
        self._popularity = np.asarray(popularity, np.float32)

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        """Users per item."""
        return np.broadcast_to(self._popularity, (len(sessions), len(self._popularity)))


class HadBeforeSystem:
    """The user's own items again, frequent and recent ones first; nothing else is scored.

    What repeat buying alone is worth: no taste is learned.
    """

    name = "had-before"

    def __init__(self, corpus: Corpus, half_life_days: float) -> None:
        self._row_of, self._size = corpus.row_of, len(corpus.item_ids)
        self._spec, self._half_life_ms = corpus.spec, half_life_days * DAY_MS

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        """Σ ½^(age / half-life) over the item's events."""
        found = np.zeros((len(sessions), self._size), np.float32)
        for row, session in zip(found, sessions, strict=True):
            for entry in split_by_liking(session.history, self._spec)[0]:
                if entry.item_id in self._row_of:
                    age = session.as_of - entry.timestamp
                    row[self._row_of[entry.item_id]] += np.exp2(-age / self._half_life_ms)
        return found


def users_per_item(corpus: Corpus, half_life_days: float | None = None) -> NDArray[np.float64]:
    """[items] users known to have had an item before the test.

    With a half-life, a user counts by the age of the newest event with the item.
    """
    events = corpus.known_events
    size = len(corpus.item_ids)
    newest = newest_per_pair(events)
    if half_life_days is None:
        return np.bincount(events.items[newest], minlength=size).astype(np.float64)
    now = reached(events.users, events.times)
    decayed = recency(events.times[newest], now, half_life_days)
    return np.bincount(events.items[newest], decayed, minlength=size).astype(np.float64)


def newest_per_pair(events: Events) -> NDArray[np.int64]:
    """Rows of the newest event of each pair of user and item, by user and item."""
    order = np.lexsort((events.times, events.items, events.users))
    users, items = events.users[order], events.items[order]
    last = np.ones(len(order), bool)
    last[:-1] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    return order[last]
