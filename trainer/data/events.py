"""Positive events as arrays: what co-occurrence, popularity and sequence models learn from."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.schemas import InteractionType
from models.settings import WindowSettings
from streams.windows import History

_TYPES: Final = tuple(InteractionType)


@dataclass(frozen=True, slots=True)
class Events:
    """One row per positive event, by user, each user's oldest first."""

    user_ids: tuple[str, ...]  # by number; users without events have no number
    users: NDArray[np.int32]  # [rows], ascending
    items: NDArray[np.int32]  # [rows], positions in Corpus.item_ids
    times: NDArray[np.int64]  # [rows], epoch ms
    weights: NDArray[np.float32]  # [rows], evidence weight of the event's type

    def __len__(self) -> int:
        return len(self.users)

    def sequences(self) -> list[NDArray[np.int32]]:
        """Per user number the items, oldest first."""
        counts = np.bincount(self.users, minlength=len(self.user_ids))
        return np.split(self.items, np.cumsum(counts)[:-1]) if len(counts) else []


class EventsBuilder:
    """Collects users one by one; about 20 bytes an event."""

    def __init__(self, row_of: Mapping[str, int], spec: WindowSettings) -> None:
        self._row_of = row_of
        self._weights = [spec.weights[kind.value] for kind in _TYPES]
        self._names: list[str] = []
        self._users, self._items = array("i"), array("i")
        self._times, self._strengths = array("q"), array("f")

    def add(self, user_id: str, liked: History) -> None:
        """One user's positives, oldest first; those of items without a row are left out."""
        known = [entry for entry in liked if entry.item_id in self._row_of]
        if not known:
            return
        self._users.extend([len(self._names)] * len(known))
        self._names.append(user_id)
        self._items.extend([self._row_of[entry.item_id] for entry in known])
        self._times.extend([entry.timestamp for entry in known])
        self._strengths.extend([self._weights[entry.code] for entry in known])

    def build(self) -> Events:
        """What was added."""
        return Events(
            tuple(self._names),
            np.array(self._users, np.int32),
            np.array(self._items, np.int32),
            np.array(self._times, np.int64),
            np.array(self._strengths, np.float32),
        )
