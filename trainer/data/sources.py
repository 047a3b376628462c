"""Where interactions and items come from; what is made of them afterwards is one and the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.schemas import Item
from models.settings import WindowSettings

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
