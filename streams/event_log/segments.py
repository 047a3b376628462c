"""The log on a local disk: append a segment, stream rows back.

A segment counts once the manifest names it. Whatever a crash leaves behind is a file that no
manifest names (see streams/event_log/repair.py).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.errors import EventLogError, ManifestLost, SegmentDamaged
from models.settings import Settings
from streams.event_log.columns import SCHEMAS
from streams.event_log.disk import exclusive
from streams.event_log.manifest import (
    FILE_NAME,
    Manifest,
    Missing,
    SegmentInfo,
    load_manifest,
    save_manifest,
)
from streams.event_log.repair import as_found, repaired
from streams.event_log.segment_file import (
    SegmentOrigin,
    damaged,
    is_whole,
    offsets_of,
    read_segment,
    span_in,
    write_segment,
)

log = logging.getLogger(__name__)


class SegmentLog:
    """The event log in a folder. Many processes may read; appends are serialised per partition.

    What cannot be read, because a segment is damaged or missing, is refused where it is asked
    for; with `skip_damaged` it is passed over, with a warning.
    """

    def __init__(self, folder: Path, *, skip_damaged: bool = False) -> None:
        self.folder = Path(folder)
        self.skip_damaged = skip_damaged
        self._told: set[str] = set()

    @classmethod
    def of(cls, settings: Settings) -> SegmentLog:
        """For readers that must have every row, unless they were told to do without."""
        return cls(settings.log_dir, skip_damaged=settings.log.skip_damaged)

    def partition_folder(self, topic: str, partition: int) -> Path:
        """Where a partition's manifest and segments are."""
        return self.folder / topic / str(partition)

    def manifest(self, topic: str, partition: int) -> Manifest:
        """The manifest as it is now; where it is lost, what the segments say."""
        folder = self.partition_folder(topic, partition)
        try:
            return load_manifest(folder)
        except ManifestLost as error:
            found = as_found(folder)
            self._tell(f"{error}; read by its segments. The recorder makes it again")
            return found

    def next_offset(self, topic: str, partition: int) -> int:
        """Offset after the last one logged; 0 for an empty log."""
        return self.manifest(topic, partition).next_offset

    def segments(self, topic: str, partition: int) -> list[SegmentInfo]:
        """By first offset; never overlapping."""
        return list(self.manifest(topic, partition).segments)

    def partitions(self, topic: str) -> list[int]:
        """Partitions that have a manifest, or segments that have lost theirs, ascending."""
        files = [
            path
            for pattern in (FILE_NAME, "*.parquet")
            for path in (self.folder / topic).glob(f"*/{pattern}")
        ]
        return sorted({int(path.parent.name) for path in files if path.parent.name.isdigit()})

    def readable(self, topic: str, partition: int) -> list[Path]:
        """The segment files that are whole, by offset; the others are told of."""
        folder, manifest = self.partition_folder(topic, partition), self.manifest(topic, partition)
        self._tell_missing(topic, partition, manifest.missing)
        whole = []
        for segment in manifest.segments:
            if is_whole(folder, segment):
                whole.append(folder / segment.file)
            else:
                self._pass_over(damaged(folder, segment.file, "it is gone or cut off"))
        return whole

    def append(self, topic: str, partition: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows (ascending `offset`, all ≥ next_offset) as one durable segment.

        Raises EventLogError if a row is already in the log.
        """
        if not rows:
            return
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMAS[topic])
        folder = self.partition_folder(topic, partition)
        with exclusive(folder):
            manifest = _begun(folder, None)
            _add(folder, manifest, manifest.next_offset, table)

    def append_from(
        self, topic: str, partition: int, start: int, table: pa.Table, topic_id: str | None = None
    ) -> SegmentInfo | None:
        """Append what the log does not hold yet of a table that is complete from `start` on.

        Two recorders may hold the same records around a rebalance; the second skips what the
        first has written. Returns the new segment, None if nothing was missing. Raises
        EventLogError if offsets between the log's end and `start` would be left out, or if the
        log is of another topic than `topic_id` (of Kafka).
        """
        folder = self.partition_folder(topic, partition)
        with exclusive(folder):
            manifest = _begun(folder, topic_id)
            known = manifest.next_offset
            if start > known:
                raise EventLogError(
                    f"log of {topic} partition {partition} ends before offset {known}, but the "
                    f"recorder holds records from {start} on: the log was changed under it "
                    "(restored or deleted?); start the recorder again, it resumes from the log"
                )
            fresh = table.slice(int(np.searchsorted(offsets_of(table), known)))
            return _add(folder, manifest, start, fresh) if fresh.num_rows else None

    def fill(
        self,
        topic: str,
        partition: int,
        hole: Missing,
        table: pa.Table,
        rest: Sequence[Missing],
    ) -> int:
        """Put rows that were missing into the log; `rest` of the hole still is. How many rows."""
        folder = self.partition_folder(topic, partition)
        with exclusive(folder):
            manifest = load_manifest(folder)
            if hole not in manifest.missing:
                return 0  # another recorder, or a file that came back, was faster
            filled: list[SegmentInfo] = []
            if table.num_rows:
                of = SegmentOrigin(topic, partition, hole.first_offset, manifest.topic_id)
                span = span_in(table)
                filled = [write_segment(folder, iter([table]), table.schema, span, of)]
            save_manifest(folder, manifest.filled(hole, filled, rest))
        return table.num_rows

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
        """As `rows`, as record batches of a few thousand rows.

        Outlives compaction: a segment that was replaced and deleted meanwhile is found again,
        merged, through the manifest. Raises EventLogError where rows that were logged cannot be
        read, unless they are to be skipped.
        """
        folder = self.partition_folder(topic, partition)
        if last is None:
            last = self.next_offset(topic, partition) - 1
        pending = self._pending(topic, partition, first, last)
        while pending:
            segment = pending.popleft()
            begin, begun = max(first, segment.first_offset), False
            try:
                for batch in read_segment(folder, segment, begin, last, columns):
                    begun = True
                    yield batch
            except SegmentDamaged as error:
                if not begun and segment not in self.segments(topic, partition):
                    pending = self._pending(topic, partition, begin, last)  # it was replaced
                    continue
                self._pass_over(error)
            first = segment.last_offset + 1

    def _pending(self, topic: str, partition: int, first: int, last: int) -> deque[SegmentInfo]:
        """The segments to read, after what is missing was told."""
        manifest = self.manifest(topic, partition)
        self._tell_missing(topic, partition, manifest.missing_within(first, last))
        return deque(manifest.within(first, last))

    def _tell_missing(self, topic: str, partition: int, missing: Sequence[Missing]) -> None:
        for hole in missing:
            self._pass_over(
                EventLogError(
                    f"the log of {topic} partition {partition} lacks {hole}: "
                    + (
                        "Kafka does not hold them any more; put the file back from a backup, or"
                        if hole.expired
                        else "the recorder reads them again from Kafka; wait for it, or"
                    )
                    + " read on without them (PALATE_LOG__SKIP_DAMAGED=true)"
                )
            )

    def _pass_over(self, error: EventLogError) -> None:
        if not self.skip_damaged:
            raise error
        self._tell(f"skipped: {error}")

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            log.warning(message)


def _begun(folder: Path, topic_id: str | None) -> Manifest:
    """The manifest to append to, made first where there is none: segments alone are damage."""
    try:
        manifest = load_manifest(folder)
    except ManifestLost:
        manifest = repaired(folder)
    if topic_id and manifest.topic_id and topic_id != manifest.topic_id:
        raise EventLogError(
            f"{folder} holds records of another topic (id {manifest.topic_id}) than the one that "
            f"is read now ({topic_id}): use a folder of its own for it (PALATE_LOG__DIR)"
        )
    if not (folder / FILE_NAME).exists():
        save_manifest(folder, manifest)
    return replace(manifest, topic_id=manifest.topic_id or topic_id)


def _add(folder: Path, manifest: Manifest, start: int, table: pa.Table) -> SegmentInfo:
    span = span_in(table)
    if span[0] < manifest.next_offset:
        raise EventLogError(
            f"{folder}: offset {span[0]} is in the log already (next is {manifest.next_offset})"
        )
    of = SegmentOrigin(folder.parent.name, int(folder.name), start, manifest.topic_id)
    # 1. the segment is durable  2. the manifest names it
    segment = write_segment(folder, iter([table]), table.schema, span, of)
    save_manifest(folder, manifest.appended(segment))
    return segment
