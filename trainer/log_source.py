"""The event log as a source: typed columns, without decoding a message again.

The typed columns hold what the recorder's codec accepted, so an interaction is read here as the
tracker read it. What a user asked to be forgotten is not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from models.errors import TrainingError
from models.schemas import Item, ProfileEdit
from streams.codec import Rejected, decode
from streams.event_log import SegmentLog
from streams.event_log.columns import OK
from streams.replay import messages
from trainer.sources import COLUMNS


class LogSource:
    """InteractionSource over an event log. Raises EventLogError where the log has holes."""

    def __init__(self, log: SegmentLog, until: Mapping[int, int] | None = None) -> None:
        """`until`: per partition of interactions, read the offsets below; None: all there are."""
        self._log = log
        self.name = "event log"
        self._until = dict(until) if until is not None else logged_until(log)

    def partitions(self) -> list[int]:
        """Partitions with logged interactions."""
        return sorted(self._until)

    def next_offsets(self) -> Mapping[int, int]:
        """As of when this source was made; what is logged later is left for the next time."""
        return self._until

    def interactions(self, partition: int, columns: Sequence[str] = COLUMNS.names) -> pa.Table:
        """Accepted interactions that their user has not asked to be forgotten."""
        forgotten = self._forgotten(partition)
        extra = {"user_id", "kafka_time"} if forgotten else set()
        asked = ["status", *dict.fromkeys([*columns, *sorted(extra)])]
        last = self._until[partition] - 1
        schema = pa.schema([COLUMNS.field(name) for name in columns])
        found = [
            _remembered(batch.filter(pc.equal(batch.column("status"), OK)), forgotten)
            for batch in self._log.batches("interactions", partition, 0, last, asked)
        ]
        tables = [pa.table(batch).select(list(columns)).cast(schema) for batch in found]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def _forgotten(self, partition: int) -> dict[str, int]:
        """User → Kafka time (ms) of the last wish to be forgotten."""
        found: dict[str, int] = {}
        for logged in messages(self._log, "profile-edits", partition):
            edit = logged.message
            assert isinstance(edit, ProfileEdit)
            if edit.action == "forget":
                found[edit.user_id] = max(logged.kafka_time, found.get(edit.user_id, 0))
        return found

    def items(self) -> Iterator[Item]:
        """Items as of now, without the removed ones."""
        newest: dict[str, Item | None] = {}
        for partition in self._log.partitions("items"):
            for row in self._log.rows("items", partition, columns=("status", "key", "value")):
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


def _remembered(batch: pa.RecordBatch, forgotten: Mapping[str, int]) -> pa.RecordBatch:
    """Without what was taken before its user asked to be forgotten (as streams.rebuild does)."""
    if not forgotten or not batch.num_rows:
        return batch
    users = pa.array(list(forgotten), pa.string())
    until = pa.array(list(forgotten.values()), pa.int64())
    wish = pc.take(until, pc.index_in(batch.column("user_id").cast(pa.string()), users))
    return batch.filter(pc.fill_null(pc.greater(batch.column("kafka_time"), wish), True))


def logged_until(log: SegmentLog) -> dict[int, int]:
    """Partition of interactions → offset after the last one logged."""
    return {
        partition: log.next_offset("interactions", partition)
        for partition in log.partitions("interactions")
    }
