"""One segment: a Parquet file that says of which records it is, and can be checked."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import EventLogError, SegmentDamaged
from streams.event_log.disk import replacing
from streams.event_log.manifest import SegmentInfo, file_name

BATCH_ROWS: Final = 2_048  # rows decoded at once when streaming
# Values are nearly all different: a dictionary of them would be built and thrown away.
_DICTIONARY: Final = ["key", "headers", "status", "reason", "type", "user_id", "item_id"]
_MAGIC: Final = b"PAR1"  # a Parquet file begins and ends with it
# Errors of the machine that say nothing about the file.
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN)


@dataclass(frozen=True, slots=True)
class SegmentOrigin:
    """What a segment holds, kept in the file itself: the manifest may be lost."""

    topic: str  # without prefix
    partition: int
    start: int  # the segment is complete from this offset on
    topic_id: str | None  # Kafka's id of the topic

    def metadata(self) -> dict[str, str]:
        """For the file's own key-value metadata."""
        named = {
            "palate.topic": self.topic,
            "palate.partition": self.partition,
            "palate.start": self.start,
            "palate.topic_id": self.topic_id,
        }
        return {name: str(value) for name, value in named.items() if value is not None}


def write_segment(
    folder: Path,
    groups: Iterator[pa.Table],
    schema: pa.Schema,
    span: tuple[int, int],
    of: SegmentOrigin,
) -> SegmentInfo:
    """Write tables as the row groups of one durable file, not yet named by the manifest.

    `span`: its first and last offset.
    """
    final = folder / file_name(*span)
    with replacing(final) as path:
        rows = _write_groups(path, groups, schema.with_metadata(of.metadata()))
        size = path.stat().st_size
    return SegmentInfo(final.name, *span, rows, size)


def _write_groups(path: Path, groups: Iterator[pa.Table], schema: pa.Schema) -> int:
    rows = 0
    dictionary = [name for name in _DICTIONARY if name in schema.names]
    options = {"compression": "zstd", "use_dictionary": dictionary, "write_page_checksum": True}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for table in groups:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            rows += table.num_rows
    return rows


@contextmanager
def opened_segment(folder: Path, file: str) -> Iterator[pq.ParquetFile]:
    """The open file. Raises SegmentDamaged if it, or what the block reads of it, is damaged."""
    try:
        with pq.ParquetFile(folder / file, page_checksum_verification=True) as opened:
            yield opened
    except FileNotFoundError:
        raise damaged(folder, file, "the file is gone") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if getattr(error, "errno", None) in _PASSING:
            raise EventLogError(f"cannot read {folder / file} now: {error}; try again") from error
        raise damaged(folder, file, " ".join(str(error).split())) from error


def damaged(folder: Path, file: str, why: str) -> SegmentDamaged:
    """What to say of a segment that cannot be read."""
    first, last = span_of(file) or ("?", "?")
    return SegmentDamaged(
        f"{folder / file} (offsets {first}..{last}) cannot be read: {why}. Restore the file from a "
        "backup, or run `palate check log`: it sets the file apart, and the recorder reads those "
        "offsets again from Kafka, where it still has them",
        file,
    )


def span_of(file: str) -> tuple[int, int] | None:
    """First and last offset by a segment's name; None if it is no such name."""
    first, _, last = file.removesuffix(".parquet").partition("-")
    if not (first.isdigit() and last.isdigit()):
        return None
    return int(first), int(last)


def is_whole(folder: Path, segment: SegmentInfo) -> bool:
    """Whether the file is there from its first to its last byte; `verify` reads those between."""
    try:
        with (folder / segment.file).open("rb") as file:
            begin = file.read(len(_MAGIC))
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, len(_MAGIC)), os.SEEK_END)
            return (begin, file.read(), size) == (_MAGIC, _MAGIC, segment.bytes)
    except OSError:
        return False


def verify(folder: Path, file: str, *, deep: bool = True) -> tuple[SegmentInfo, SegmentOrigin]:
    """Read a segment (`deep`: every byte of it) and say what it holds.

    Raises SegmentDamaged if it cannot be read, is not what its name says, or is of another topic
    or partition than its folder.
    """
    topic, partition = folder.parent.name, int(folder.name)
    with opened_segment(folder, file) as opened:
        origin = origin_of(opened)
        if (origin.topic, origin.partition) != (topic, partition):
            raise damaged(folder, file, f"it is of {origin.topic} partition {origin.partition}")
        offsets = _offsets_in(opened, None if deep else ["offset", "partition"], partition)
    if offsets is None or (np.diff(offsets) <= 0).any():
        raise damaged(folder, file, f"its rows are not those of partition {partition}, in order")
    span = int(offsets[0]), int(offsets[-1])
    if file_name(*span) != file:
        raise damaged(folder, file, f"it holds offsets {span[0]}..{span[1]}")
    size = (folder / file).stat().st_size
    return SegmentInfo(file, *span, len(offsets), size), origin


def origin_of(opened: pq.ParquetFile) -> SegmentOrigin:
    """What the file says of itself. Raises ValueError if it does not."""
    said = {
        name.decode(): value.decode()
        for name, value in (opened.schema_arrow.metadata or {}).items()
        if name.startswith(b"palate.")
    }
    try:
        return SegmentOrigin(
            said["palate.topic"],
            int(said["palate.partition"]),
            int(said["palate.start"]),
            said.get("palate.topic_id"),
        )
    except KeyError as error:
        raise ValueError("it does not say of which records it is") from error


def _offsets_in(
    opened: pq.ParquetFile, columns: Sequence[str] | None, partition: int
) -> np.ndarray | None:
    """All offsets; None if there are none, or rows of another partition."""
    found = []
    for batch in opened.iter_batches(BATCH_ROWS, columns=columns):
        batch.validate(full=True)
        if (np.asarray(batch.column("partition")) != partition).any():
            return None
        found.append(offsets_of(batch))
    return np.concatenate(found) if found else None


def read_segment(
    folder: Path, segment: SegmentInfo, first: int, last: int, columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """Its rows with offsets first..last. Raises SegmentDamaged, at the end if some are lacking."""
    file, rows = segment.file, 0
    with opened_segment(folder, file) as opened:
        names = opened.schema_arrow.names
        wanted = names if columns is None else [name for name in columns if name in names]
        asked = wanted if "offset" in wanted else ["offset", *wanted]
        groups = _row_groups(folder, segment, opened.metadata, first, last)
        for batch in opened.iter_batches(BATCH_ROWS, row_groups=groups, columns=asked):
            rows += batch.num_rows
            offsets = offsets_of(batch)
            low, high = np.searchsorted(offsets, first), np.searchsorted(offsets, last, "right")
            if high > low:
                yield batch.slice(low, high - low).select(wanted)
        if rows != sum(opened.metadata.row_group(group).num_rows for group in groups):
            raise damaged(folder, file, f"only {rows} rows of it can be read")


def _row_groups(
    folder: Path, segment: SegmentInfo, metadata: Any, first: int, last: int
) -> list[int]:
    """Row groups whose offsets lie in first..last, by their statistics, which must make sense."""
    column = metadata.schema.names.index("offset")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != segment.rows:
        raise damaged(folder, segment.file, f"by its footer it has not {segment.rows} rows")
    ranges = [group.column(column).statistics for group in groups]
    if not all(range_ is not None and range_.has_min_max for range_ in ranges):
        return list(range(len(groups)))
    ends = [end for range_ in ranges for end in (range_.min, range_.max)]
    if ends != sorted(ends) or (ends[0], ends[-1]) != (segment.first_offset, segment.last_offset):
        raise damaged(folder, segment.file, "its footer tells other offsets")
    return [n for n, range_ in enumerate(ranges) if range_.max >= first and range_.min <= last]


def offsets_of(table: pa.Table | pa.RecordBatch) -> np.ndarray:
    """The column `offset`."""
    return np.asarray(table.column("offset"))


def span_in(table: pa.Table) -> tuple[int, int]:
    """First and last offset. Raises EventLogError if the rows are not in ascending order."""
    offsets = offsets_of(table)
    if (np.diff(offsets) <= 0).any():
        raise EventLogError("rows of a segment must come in ascending order of offset")
    return int(offsets[0]), int(offsets[-1])


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """With the columns of `schema`; those that an older segment lacks are null."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
