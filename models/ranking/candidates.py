"""Candidates for catalogues too large to score whole: batched searches of the vector index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from models.ports import VectorIndex, Vectors
from models.ranking.catalogue import Catalogue
from models.ranking.neighbours import Neighbours, Rows
from models.ranking.queries import Query, shares_of, tastes_of
from models.settings import RankingSettings

_SEARCHED: Final = 2  # × candidates: hidden, seen and unavailable items drop out later


def search_candidates(
    index: VectorIndex,
    table: str,
    catalogue: Catalogue,
    neighbours: Neighbours,
    queries: Sequence[Query],
    settings: RankingSettings,
) -> list[Rows] | None:
    """Each user's rows worth scoring, or None for a catalogue small enough to score whole.

    One batched search for what is near in text, the neighbours of the recent items, and the
    most popular items. It blocks on the index: call it from a thread.
    """
    if len(catalogue) <= settings.exact_up_to or not queries:
        return None
    wanted = _SEARCHED * settings.candidates
    shares = [shares_of(query.recent, settings) for query in queries]
    taste = tastes_of(catalogue, queries, shares, settings)
    found = index.search(table, _unit(taste.profile + taste.recent), wanted)
    popular = np.argsort(-neighbours.popularity, kind="stable")[:wanted]
    rows = []
    for near, user_shares in zip(found, shares, strict=True):
        by_text = [catalogue.row_of[item] for item, _ in near if item in catalogue.row_of]
        beside = [neighbours.of(share.item_id)[0] for share in user_shares]
        rows.append(np.unique(np.concatenate([by_text, popular, *beside]).astype(np.int64)))
    return rows


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)
