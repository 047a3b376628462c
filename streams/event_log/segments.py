"""The log on a local disk: append a segment, stream rows back.

A segment counts once the manifest names it. Whatever a crash leaves behind is a file that no
manifest names; compaction sweeps it up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import EventLogError
from models.ports import SegmentInfo
from streams.event_log.columns import SCHEMAS
from streams.event_log.disk import exclusive, replacing
from streams.event_log.manifest import FILE_NAME, Manifest, load_manifest, save_manifest

BATCH_ROWS: Final = 2_048  # rows decoded at once when streaming
# Values are nearly all different: a dictionary of them would be built and thrown away.
_DICTIONARY: Final = ["key", "headers", "status", "reason", "type", "user_id", "item_id"]


class SegmentLog:
    """EventLog in a folder. Many processes may read; appends are serialised per partition."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def partition_folder(self, topic: str, partition: int) -> Path:
        """Where a partition's manifest and segments are."""
        return self.folder / topic / str(partition)

    def manifest(self, topic: str, partition: int) -> Manifest:
        """The manifest as it is now."""
        return load_manifest(self.partition_folder(topic, partition))

    def next_offset(self, topic: str, partition: int) -> int:
        """Offset after the last one logged; 0 for an empty log."""
        return self.manifest(topic, partition).next_offset

    def segments(self, topic: str, partition: int) -> list[SegmentInfo]:
        """By first offset; never overlapping."""
        return list(self.manifest(topic, partition).segments)

    def partitions(self, topic: str) -> list[int]:
        """Partitions that have a manifest, ascending."""
        manifests = (self.folder / topic).glob(f"*/{FILE_NAME}")
        return sorted(int(path.parent.name) for path in manifests if path.parent.name.isdigit())

    def append(self, topic: str, partition: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows (ascending `offset`, all ≥ next_offset) as one durable segment.

        Raises EventLogError if a row is already in the log.
        """
        if not rows:
            return
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMAS[topic])
        folder = self.partition_folder(topic, partition)
        with exclusive(folder):
            self._add(folder, table)

    def append_from(
        self, topic: str, partition: int, start: int, table: pa.Table
    ) -> SegmentInfo | None:
        """Append what the log does not hold yet of a table that is complete from `start` on.

        Two recorders may hold the same records around a rebalance; the second skips what the
        first has written. Returns the new segment, None if nothing was missing. Raises
        EventLogError if offsets between the log's end and `start` would be left out.
        """
        folder = self.partition_folder(topic, partition)
        with exclusive(folder):
            known = load_manifest(folder).next_offset
            if start > known:
                raise EventLogError(
                    f"log of {topic} partition {partition} ends before offset {known}, but the "
                    f"recorder holds records from {start} on: the log was changed under it "
                    "(restored or deleted?); start the recorder again, it resumes from the log"
                )
            fresh = table.slice(int(np.searchsorted(_offsets(table), known)))
            return self._add(folder, fresh) if fresh.num_rows else None

    def _add(self, folder: Path, table: pa.Table) -> SegmentInfo:
        manifest = load_manifest(folder)
        first, last = _range(table)
        if first < manifest.next_offset:
            raise EventLogError(
                f"{folder}: offset {first} is in the log already (next is {manifest.next_offset})"
            )
        # 1. the segment is durable  2. the manifest names it
        segment = write_segment(folder, iter([table]), table.schema, first, last)
        save_manifest(folder, manifest.appended(segment))
        return segment

    def rows(
        self,
        topic: str,
        partition: int,
        first: int = 0,
        last: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Stream rows with offsets first..last (inclusive; None: to the end as of now)."""
        for batch in self.batches(topic, partition, first, last, columns):
            yield from batch.to_pylist()

    def batches(
        self,
        topic: str,
        partition: int,
        first: int = 0,
        last: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """As `rows`, as record batches of at most BATCH_ROWS rows.

        Outlives compaction: a segment that was replaced and deleted meanwhile is found again,
        merged, through the manifest.
        """
        folder = self.partition_folder(topic, partition)
        manifest = load_manifest(folder)
        last = manifest.next_offset - 1 if last is None else last
        pending = deque(manifest.within(first, last))
        while pending:
            segment = pending.popleft()
            try:
                opened = pq.ParquetFile(folder / segment.file)
            except FileNotFoundError:
                pending = _reloaded(folder, segment, max(first, segment.first_offset), last)
                continue
            except (pa.ArrowException, OSError) as error:
                raise _damaged(folder, segment, error) from error
            with opened:
                yield from _whole(
                    folder, segment, _read(opened, max(first, segment.first_offset), last, columns)
                )
            first = segment.last_offset + 1


def _whole(
    folder: Path, segment: SegmentInfo, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(folder, segment, error) from error
        if batch is None:
            return
        yield batch


def _damaged(folder: Path, segment: SegmentInfo, error: Exception) -> EventLogError:
    return EventLogError(
        f"{folder / segment.file} (offsets {segment.first_offset}..{segment.last_offset}) cannot "
        f"be read: {' '.join(str(error).split())}; it is truncated or damaged: restore the file"
    )


def _reloaded(folder: Path, lost: SegmentInfo, first: int, last: int) -> deque[SegmentInfo]:
    found = load_manifest(folder).within(first, last)
    if lost in found:
        raise EventLogError(
            f"{folder / lost.file} is gone, and the manifest still names it: offsets "
            f"{lost.first_offset}..{lost.last_offset} are lost unless the file is restored"
        )
    return deque(found)


def _read(
    opened: pq.ParquetFile, first: int, last: int, columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    names = opened.schema_arrow.names
    wanted = names if columns is None else [name for name in columns if name in names]
    asked = wanted if "offset" in wanted else ["offset", *wanted]
    groups = _row_groups(opened.metadata, first, last)
    for batch in opened.iter_batches(BATCH_ROWS, row_groups=groups, columns=asked):
        offsets = _offsets(batch)
        low, high = np.searchsorted(offsets, first), np.searchsorted(offsets, last, "right")
        if high > low:
            yield batch.slice(low, high - low).select(wanted)


def _row_groups(metadata: Any, first: int, last: int) -> list[int]:
    """Row groups whose offsets may lie in first..last, by their statistics."""
    column = metadata.schema.names.index("offset")
    found = []
    for group in range(metadata.num_row_groups):
        range_ = metadata.row_group(group).column(column).statistics
        if range_ is None or (range_.max >= first and range_.min <= last):
            found.append(group)
    return found


def write_segment(
    folder: Path, groups: Iterator[pa.Table], schema: pa.Schema, first: int, last: int
) -> SegmentInfo:
    """Write tables as the row groups of one durable file, not yet named by the manifest."""
    final = folder / f"{first:020d}-{last:020d}.parquet"
    with replacing(final) as path:
        rows = _write_groups(path, groups, schema)
    return SegmentInfo(final.name, first, last, rows, final.stat().st_size)


def _write_groups(path: Path, groups: Iterator[pa.Table], schema: pa.Schema) -> int:
    rows = 0
    dictionary = [name for name in _DICTIONARY if name in schema.names]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=dictionary) as writer:
        for table in groups:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            rows += table.num_rows
    return rows


def _offsets(table: pa.Table | pa.RecordBatch) -> np.ndarray:
    return np.asarray(table.column("offset"))


def _range(table: pa.Table) -> tuple[int, int]:
    offsets = _offsets(table)
    if (np.diff(offsets) <= 0).any():
        raise EventLogError("rows of a segment must come in ascending order of offset")
    return int(offsets[0]), int(offsets[-1])
