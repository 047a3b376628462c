"""The event log as a source: typed columns, without decoding a message again.

The typed columns hold what the recorder's codec accepted, so an interaction is read here as the
tracker read it. What a user asked to be forgotten is not read, whenever the wish came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from models.errors import TrainingError
from models.schemas import Item, ProfileEdit
from streams.codec import Rejected, decode
from streams.event_log import SegmentLog
from streams.event_log.columns import OK
from streams.event_log.views import Forgotten, forgotten_users
from streams.replay import messages
from trainer.data.sources import COLUMNS

Pins = Mapping[str, Mapping[int, int]]  # topic → partition → offset after the last one read
READ: Final = ("interactions", "items", "profile-edits")


class LogSource:
    """InteractionSource over an event log. Raises EventLogError where the log has holes."""

    def __init__(
        self, log: SegmentLog, weights: Mapping[str, float], until: Pins | None = None
    ) -> None:
        """`until`: of interactions and items, read the offsets below; None: all there are.

        Wishes to be forgotten are read to their end all the same; `weights` are those of the
        settings' windows.
        """
        self._log, self._weights = log, weights
        self.name = "event log"
        pins = logged_until(log) if until is None else until
        self._until, self._items_until = dict(pins["interactions"]), dict(pins["items"])

    def partitions(self) -> list[int]:
        """Partitions with logged interactions."""
        return sorted(self._until)

    def next_offsets(self) -> Mapping[int, int]:
        """As of when this source was made; what is logged later is left for the next time."""
        return self._until

    def interactions(self, partition: int, columns: Sequence[str] = COLUMNS.names) -> pa.Table:
        """Accepted interactions that their user has not asked to be forgotten."""
        forgotten = self._forgotten
        extra = {"user_id", "kafka_time", "timestamp"} if forgotten else set()
        asked = ["status", *dict.fromkeys([*columns, *sorted(extra)])]
        last = self._until[partition] - 1
        schema = pa.schema([COLUMNS.field(name) for name in columns])
        found = [
            _remembered(batch.filter(pc.equal(batch.column("status"), OK)), forgotten)
            for batch in self._log.batches("interactions", partition, 0, last, asked)
        ]
        tables = [pa.table(batch).select(list(columns)).cast(schema) for batch in found]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    @cached_property
    def _forgotten(self) -> Mapping[str, Forgotten]:
        return forgotten_users(self._log.folder, self._weights)

    def items(self) -> Iterator[Item]:
        """Items as of when this source was made, without the removed ones."""
        newest: dict[str, Item | None] = {}
        for partition, until in self._items_until.items():
            columns = ("status", "key", "value")
            for row in self._log.rows("items", partition, 0, until - 1, columns):
                item_id, item = _item_of(row["status"], row["key"], row["value"])
                if item_id is not None:
                    newest[item_id] = item
        yield from (item for item in newest.values() if item is not None)


def _item_of(status: str, key: bytes | None, value: bytes | None) -> tuple[str | None, Item | None]:
    if status == OK:
        item = decode(value, Item)
        if isinstance(item, Rejected):
            raise TrainingError(
                f"an item of the event log is refused now ({item.detail}): this Palate reads "
                "another schema than the one that recorded it"
            )
        return item.item_id, item
    if status == "tombstone" and key is not None:
        return key.decode(errors="replace"), None
    return None, None


def _remembered(batch: pa.RecordBatch, forgotten: Mapping[str, Forgotten]) -> pa.RecordBatch:
    """Without what its user asked to be forgotten, as the log's view `remembered`."""
    if not forgotten or not batch.num_rows:
        return batch
    users = pa.array(list(forgotten), pa.string())
    wish = pc.index_in(batch.column("user_id").cast(pa.string()), users)
    taken, until = (pa.array(times, pa.int64()) for times in zip(*forgotten.values(), strict=True))
    later = pc.and_(
        pc.greater(batch.column("kafka_time"), pc.take(taken, wish)),
        pc.greater(batch.column("timestamp"), pc.take(until, wish)),
    )
    return batch.filter(pc.fill_null(later, True))


def _wishes(log: SegmentLog, partition: int, first: int) -> Iterator[str]:
    """User of each wish to be forgotten from offset `first` on."""
    for logged in messages(log, "profile-edits", partition, first):
        edit = logged.message
        assert isinstance(edit, ProfileEdit)
        if edit.action == "forget":
            yield edit.user_id


def forgotten_since(log: SegmentLog, until: Pins) -> frozenset[str]:
    """Users who asked to be forgotten after the offsets `until` of profile edits."""
    edits = until["profile-edits"]
    return frozenset(
        user_id
        for partition in log.partitions("profile-edits")
        for user_id in _wishes(log, partition, edits.get(partition, 0))
    )


def logged_until(log: SegmentLog) -> dict[str, dict[int, int]]:
    """Topic → partition → offset after the last one logged, of all that training reads."""
    return {
        topic: {partition: log.next_offset(topic, partition) for partition in log.partitions(topic)}
        for topic in READ
    }


def logged_since(offsets: Mapping[int, int], logged: Pins) -> int:
    """Interactions logged from these offsets on; a partition that they do not name counts whole."""
    return sum(
        max(0, offset - offsets.get(partition, 0))
        for partition, offset in logged["interactions"].items()
    )
