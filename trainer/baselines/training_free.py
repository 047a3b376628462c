"""Text and co-occurrence without training, through the ranking that serves (methods §5.9, STAR).

last-item-text   cosine to the last item's text
history-text     cosine to the history's texts, weights 0.7^age
cooccurrence     decayed, cosine-normalised co-occurrence with the history, the same weights
star             text / 3 + co-occurrence: the weights that the tracker ships with
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from models.ports import VectorRow, Vectors
from models.ranking.catalogue import Catalogue
from models.ranking.cooccurrence_build import PositivePairs, build
from models.ranking.neighbours import Neighbours, align
from models.ranking.queries import Query
from models.ranking.reasons import PARTS
from models.ranking.scoring import score_batch
from models.settings import IndexSettings, RankingSettings, WindowSettings
from streams.queries import query_of
from trainer.baselines.counted import newest_per_pair
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.evaluation.systems import ScoreMatrix

_NOTHING: Final = dict.fromkeys(PARTS, 0.0)


class RankingSystem:
    """`models.ranking.scoring` as a system, with some of its parts on."""

    def __init__(
        self,
        name: str,
        catalogue: Catalogue,
        neighbours: Neighbours,
        settings: RankingSettings,
        spec: WindowSettings,
        *,
        by_moment: bool = True,
    ) -> None:
        """`by_moment`: items had at one time have one age; else age counts positions."""
        self.name = name
        self._catalogue, self._neighbours = catalogue, neighbours
        self._settings, self._spec, self._by_moment = settings, spec, by_moment

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        """As the tracker would score at each session's moment."""
        queries = [query_of(one.user_id, one.history, self._spec) for one in sessions]
        if not self._by_moment:
            queries = [_by_position(query) for query in queries]
        found = score_batch(self._catalogue, self._neighbours, queries, self._settings)
        return found.astype(np.float32)


def _by_position(query: Query) -> Query:
    """With ages that count positions, not moments."""
    return replace(query, recent=[entry._replace(moment=None) for entry in query.recent])


def catalogue_of(corpus: Corpus, vectors: Vectors) -> Catalogue:
    """The corpus's items with their vectors [items, dimension], as ranking holds them.

    Whether an item can be had is of no account to `scores`: compared systems rank all there is.
    """
    rows = zip(corpus.items.values(), vectors, strict=True)
    return Catalogue.of(
        [
            VectorRow(item.item_id, vector, "", 0, {"available": item.available})
            for item, vector in rows
        ]
    )


def neighbours_of(corpus: Corpus, catalogue: Catalogue, settings: IndexSettings) -> Neighbours:
    """The co-occurrence snapshot that the indexer would have made just before the test."""
    snapshot = build(
        evidence_of(corpus),
        neighbours=settings.cooccurrence_neighbours,
        half_life_days=settings.pair_half_life_days,
        popularity_half_life_days=settings.popularity_half_life_days,
        support=settings.pair_support,
    )
    return align(snapshot, catalogue)


def evidence_of(corpus: Corpus) -> PositivePairs:
    """What was known before the test: one row per user and item."""
    events = corpus.known_events
    newest = newest_per_pair(events)
    strongest = np.zeros(len(newest))
    pair_of_row = np.searchsorted(
        _pair_keys(events.users[newest], events.items[newest], len(corpus.item_ids)),
        _pair_keys(events.users, events.items, len(corpus.item_ids)),
    )
    np.maximum.at(strongest, pair_of_row, events.weights)
    return PositivePairs(
        ids=corpus.item_ids,
        users=events.users[newest].astype(np.int64),
        items=events.items[newest].astype(np.int64),
        weights=strongest,
        timestamps=events.times[newest],
    )


def _pair_keys(users: np.ndarray, items: np.ndarray, size: int) -> np.ndarray:
    return users.astype(np.int64) * size + items


def parts(**weights: float) -> RankingSettings:
    """Ranking with only these parts on."""
    return RankingSettings(**{**_NOTHING, **weights})


LAST_ITEM_TEXT: Final = parts(recent=1.0).model_copy(update={"recent_items": 1})
HISTORY_TEXT: Final = parts(recent=1.0)
COOCCURRENCE: Final = parts(cooccurrence=1.0)
STAR: Final = parts(recent=RankingSettings().recent, cooccurrence=RankingSettings().cooccurrence)
