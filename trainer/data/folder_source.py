"""A folder with `items.parquet` and `interactions.parquet` as a source.

Read through the importers, so that a folder evaluated here and one sent by `palate import` are
the same events under the same ids. Three shapes of interactions are known: invoice lines
(`online-retail`), Palate's own fields (`generic`), and plain sequences (user_id, item_id,
timestamp in seconds, position), which are taken as purchases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from models.errors import TrainingError
from models.schemas import Interaction, Item
from streams.importers.cells import Layout
from streams.importers.layouts import FORMATS
from streams.importers.readers import open_table
from streams.importers.rows import Adapted, Kind, RowAdapter, SourceTable
from streams.importers.values import build, missing, seconds_to_ms
from trainer.data.sources import COLUMNS

_SEQUENCE: Final = ("user_id", "item_id", "timestamp", "position")
_BATCH: Final = 50_000


class FolderSource:
    """InteractionSource over prepared files: one partition, offsets in file order.

    Raises TrainingError when the folder or a file in it is not what is needed, ImportFailed when
    a file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.resolve().name
        self._items = _existing(folder / "items.parquet")
        self._table = _read(_existing(folder / "interactions.parquet"))

    def partitions(self) -> list[int]:
        """The only one."""
        return [0]

    def next_offsets(self) -> Mapping[int, int]:
        """Offset after the last usable row."""
        offsets = self._table.column("offset")
        return {0: offsets[-1].as_py() + 1 if len(offsets) else 0}

    def interactions(self, partition: int, columns: Sequence[str] = COLUMNS.names) -> pa.Table:
        """All usable rows."""
        if partition != 0:
            raise TrainingError(f"a folder has partition 0 only, not {partition}")
        return self._table.select(list(columns))

    def items(self) -> Iterator[Item]:
        """Items with a title."""
        (layout,) = FORMATS["generic"].layouts[Kind.ITEMS]
        adapt = layout.start()
        for row in open_table(self._items).rows:
            found = adapt(row.values) if row.values is not None else None
            if isinstance(found, Item):
                yield found


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise TrainingError(
            f"{path} is not there; a data folder holds items.parquet and interactions.parquet"
        )
    return path


def _read(path: Path) -> pa.Table:
    opened = open_table(path)
    adapt = _adapter(opened)
    tables = [COLUMNS.empty_table()]
    rows: list[tuple[Any, ...]] = []
    for row in opened.rows:
        found = adapt(row.values) if row.values is not None else None
        if isinstance(found, Interaction):
            rows.append(_fields(row.line, found))
        if len(rows) >= _BATCH:
            tables.append(_table(rows))
            rows = []
    return pa.concat_tables([*tables, _table(rows)]) if rows else pa.concat_tables(tables)


def _adapter(opened: SourceTable) -> RowAdapter:
    sequences = Layout(
        _SEQUENCE,
        lambda: sequence_row,
        ids=("user_id", "item_id"),
        times={"timestamp": seconds_to_ms},
        numbers=("position",),
    )
    for layout in (
        *FORMATS["online-retail"].layouts[Kind.INTERACTIONS],
        *FORMATS["generic"].layouts[Kind.INTERACTIONS],
        sequences,
    ):
        if set(opened.columns).issuperset(layout.required):
            return layout.start()
    raise TrainingError(
        f"{opened.path} has columns {', '.join(opened.columns)}; interactions need user_id, "
        "item_id, timestamp and type, or event_type with basket_id, or position"
    )


def sequence_row(values: Mapping[str, Any]) -> Adapted:
    """One row of plain sequences → a purchase, for nothing is said of what was done.

    The position stands first in the event id: it orders what a user did at one time.
    """
    absent = missing(values, *_SEQUENCE)
    if absent:
        return absent
    return build(
        Interaction,
        event_id=f"{int(values['position']):06d}:{values['user_id']}",
        user_id=values["user_id"],
        item_id=values["item_id"],
        type="purchase",
        timestamp=values["timestamp"],
    )


def _fields(line: int, found: Interaction) -> tuple[Any, ...]:
    return (
        line - 1,
        found.user_id,
        found.event_id,
        found.item_id,
        found.type.value,
        found.timestamp,
        found.rating,
        found.quantity,
        found.review,
        found.recommendation_id,
    )


def _table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns: list[Callable[[], Any]] = list(zip(*rows, strict=True))  # type: ignore[arg-type]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, COLUMNS, strict=True)]
    return pa.table(arrays, schema=COLUMNS)
