"""What is known about a user when a list is asked for, and its form for arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.errors import VectorIndexError
from models.ports import Vectors
from models.ranking.catalogue import Catalogue, on_grid
from models.schemas import Sentence
from models.settings import RankingSettings


class Recent(NamedTuple):
    """One positive interaction: its item, its evidence weight (undecayed) and its event."""

    item_id: str
    weight: float
    event_id: str
    moment: int | None = None  # event time; what was had at one moment, a basket, has one age


@dataclass(frozen=True, slots=True)
class Query:
    """One user's side of a recommendation."""

    user_id: str
    recent: Sequence[Recent] = ()  # newest first
    profile: Vectors | None = None  # [dimension], unit length, of the catalogue's release
    sentences: Sequence[Sentence] = ()  # of the profile's liking sections, for reasons
    seen: frozenset[str] = frozenset()  # left out where settings.exclude_seen
    hidden: frozenset[str] = frozenset()  # always left out


class Share(NamedTuple):
    """A recent item's part of what the recent items say; a user's shares sum to 1."""

    item_id: str
    share: float
    event_id: str


class Tastes(NamedTuple):
    """Query vectors on the grid, together at most of length 1, and what scales them back."""

    profile: Vectors  # [users, dimension]
    recent: Vectors  # [users, dimension]
    scale: float


def shares_of(recent: Sequence[Recent], settings: RankingSettings) -> list[Share]:
    """The newest distinct items, each with its strongest evidence, decayed by age in moments."""
    strongest: dict[str, Recent] = {}
    for entry in recent:
        known = strongest.get(entry.item_id)
        if known is not None:
            strongest[entry.item_id] = known._replace(weight=max(known.weight, entry.weight))
        elif len(strongest) < settings.recent_items:
            strongest[entry.item_id] = entry
    entries = strongest.values()
    decayed = [
        entry.weight * settings.recent_decay**age
        for entry, age in zip(entries, _ages([entry.moment for entry in entries]), strict=True)
    ]
    total = sum(decayed) or 1.0
    return [
        Share(entry.item_id, weight / total, entry.event_id)
        for entry, weight in zip(entries, decayed, strict=True)
    ]


def _ages(moments: Sequence[int | None]) -> list[int]:
    """How many moments lie between each entry and the newest; None is a moment of its own."""
    ages: list[int] = []
    for place, moment in enumerate(moments):
        same = place > 0 and moment is not None and moment == moments[place - 1]
        ages.append(ages[-1] + (not same) if ages else 0)
    return ages


def tastes_of(
    catalogue: Catalogue,
    queries: Sequence[Query],
    shares: Sequence[Sequence[Share]],
    settings: RankingSettings,
) -> Tastes:
    """The weighted profile and recent-items vectors of each user."""
    scale = settings.profile + settings.recent or 1.0
    profile = np.zeros((len(queries), catalogue.dimension))
    recent = np.zeros_like(profile)
    for user, query in enumerate(queries):
        if query.profile is not None:
            profile[user] = _checked(query.user_id, query.profile, catalogue.dimension)
        known = [share for share in shares[user] if share.item_id in catalogue.row_of]
        if known:
            rows = [catalogue.row_of[share.item_id] for share in known]
            recent[user] = np.array([share.share for share in known]) @ catalogue.matrix[rows]
    return Tastes(
        on_grid(profile * (settings.profile / scale)),
        on_grid(recent * (settings.recent / scale)),
        scale,
    )


def _checked(user_id: str, profile: Vectors, dimension: int) -> Vectors:
    if len(profile) != dimension:
        raise VectorIndexError(
            f"profile vector of user {user_id!r} has {len(profile)} dimensions, the items have "
            f"{dimension}: they are of different releases"
        )
    return profile
