"""Where interactions and items come from; what is made of them afterwards is one and the same."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.schemas import InteractionType, Item
from models.settings import WindowSettings
from streams.windows import History

COLUMNS: Final = pa.schema(
    [
        pa.field("offset", pa.int64()),  # in its partition
        pa.field("user_id", pa.string()),
        pa.field("event_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("type", pa.string()),
        pa.field("timestamp", pa.int64()),  # event time, epoch ms
        pa.field("rating", pa.float64()),
        pa.field("quantity", pa.float64()),
        pa.field("review", pa.string()),
        pa.field("recommendation_id", pa.string()),
    ]
)


# Positive events as arrays: what co-occurrence, popularity and sequence models learn from.

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


"""What replay reads of an interaction; one row each, in order of offset."""


class InteractionSource(Protocol):
    """Accepted interactions by partition, and the catalogue."""

    name: str

    def partitions(self) -> list[int]:
        """Partitions with interactions, ascending."""
        ...

    def interactions(self, partition: int, columns: Sequence[str] = COLUMNS.names) -> pa.Table:
        """These columns of COLUMNS, one row per accepted interaction, in order of offset."""
        ...

    def items(self) -> Iterator[Item]:
        """The catalogue as of now; of several versions of an item, the last."""
        ...

    def next_offsets(self) -> Mapping[int, int]:
        """Per partition the offset after the last interaction that may be read."""
        ...


def kept_types(spec: WindowSettings) -> pa.Array:
    """The types of interaction that enter histories."""
    return pa.array([name for name, weight in spec.weights.items() if weight > 0], pa.string())


def only_kept(table: pa.Table, spec: WindowSettings) -> pa.Table:
    """Without the types that do not enter histories."""
    return table.filter(pc.is_in(table.column("type"), value_set=kept_types(spec)))


def event_times(source: InteractionSource, spec: WindowSettings) -> np.ndarray:
    """Event times (epoch ms) of everything that enters histories, in no order.

    An event id counts once per partition, with the time that it came with first: what is sent
    again must not move the borders of the splits.
    """
    times = [_first_times(source, partition, spec) for partition in source.partitions()]
    return np.concatenate(times) if times else np.empty(0, np.int64)


def _first_times(source: InteractionSource, partition: int, spec: WindowSettings) -> np.ndarray:
    table = only_kept(source.interactions(partition, ("type", "timestamp", "event_id")), spec)
    codes = table.column("event_id").combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return table.column("timestamp").to_numpy()[first]
