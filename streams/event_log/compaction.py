"""Merge small segments, so that files and manifests stay few however slowly events come.

Readers never wait and never break: outputs are written beside the inputs, the manifest is
swapped in one step, and replaced files stay for a grace period. A crash between any two steps
leaves either the old or the new manifest, and files that the next compaction sweeps up.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import EventLogError
from models.ports import SegmentInfo
from streams.event_log.columns import SCHEMAS
from streams.event_log.disk import exclusive
from streams.event_log.manifest import Manifest, Replaced, load_manifest, save_manifest
from streams.event_log.segments import SegmentLog, write_segment

FULL_ROWS: Final = 1_000_000  # a segment this large is left alone
FULL_BYTES: Final = 256 * 2**20
FAN_IN: Final = 8  # segments of one size that make one of the next: each row moves O(log) times
GROUP_ROWS: Final = 65_536  # rows per row group of a merged segment
GROUP_BYTES: Final = 64 * 2**20
GRACE_S: Final = 600.0  # a query that holds an old manifest may run this long


def compact(
    log: SegmentLog, topic: str, partition: int, below_rows: int, grace_s: float = GRACE_S
) -> int:
    """Merge what is due and delete what was replaced more than `grace_s` ago.

    Returns the number of merges.
    """
    folder = log.partition_folder(topic, partition)
    if not folder.is_dir():
        return 0
    merged = 0
    while run := due(load_manifest(folder).segments, below_rows):
        if not _merge(folder, run, SCHEMAS[topic]):
            break
        merged += 1
    _sweep(folder, time.time() - grace_s)
    return merged


def due(segments: Sequence[SegmentInfo], below_rows: int) -> tuple[SegmentInfo, ...]:
    """The next run of adjacent segments to merge; () if none.

    Two that are smaller than `below_rows` suffice; of larger ones FAN_IN of a size class.
    """
    tiers = [_tier(segment, below_rows) for segment in segments]
    for tier in sorted({tier for tier in tiers if tier is not None}):
        small = [found is not None and found <= tier for found in tiers]
        place = 0
        for is_small, places in groupby(small):
            length = sum(1 for _ in places)
            run = _limited(segments[place : place + length]) if is_small else ()
            if len(run) >= (2 if tier == 0 else FAN_IN):
                return run
            place += length
    return ()


def _tier(segment: SegmentInfo, below_rows: int) -> int | None:
    """Size class: 0 below `below_rows`, then by powers of FAN_IN; None: full."""
    if segment.rows >= FULL_ROWS // 2 or segment.bytes >= FULL_BYTES // 2:
        return None
    if segment.rows < below_rows:
        return 0
    return 1 + int(math.log(segment.rows / below_rows, FAN_IN))


def _limited(run: Sequence[SegmentInfo]) -> tuple[SegmentInfo, ...]:
    """The beginning of the run that fits one full segment, at least two segments of it."""
    rows = size = 0
    for place, segment in enumerate(run):
        rows, size = rows + segment.rows, size + segment.bytes
        if place >= 2 and (rows > FULL_ROWS or size > FULL_BYTES):
            return tuple(run[:place])
    return tuple(run)


def _merge(folder: Path, run: Sequence[SegmentInfo], schema: pa.Schema) -> bool:
    # 1. the merged segment is durable; no lock, its inputs never change
    groups = _row_groups(folder, run, schema)
    output = write_segment(folder, groups, schema, run[0].first_offset, run[-1].last_offset)
    # 2. the manifest names it in place of its inputs, unless another compaction was faster
    with exclusive(folder):
        manifest = load_manifest(folder)
        try:
            save_manifest(folder, manifest.merged(run, output, time.time()))
        except EventLogError:
            return False
    return True


def _row_groups(folder: Path, run: Sequence[SegmentInfo], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a run as tables of one row group each, holding one in memory at a time."""
    held: list[pa.Table] = []
    for segment in run:
        with pq.ParquetFile(folder / segment.file) as opened:
            for batch in opened.iter_batches(GROUP_ROWS // 16):
                held.append(_conformed(pa.Table.from_batches([batch]), schema))
                if _is_full(held):
                    yield pa.concat_tables(held).combine_chunks()
                    held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _is_full(held: Sequence[pa.Table]) -> bool:
    rows, size = sum(table.num_rows for table in held), sum(table.nbytes for table in held)
    return rows >= GROUP_ROWS or size >= GROUP_BYTES


def _conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """With the columns of `schema`; those that an older segment lacks are null."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _sweep(folder: Path, before: float) -> None:
    """Delete files that were replaced, or left behind by a crash, before that wall time."""
    with exclusive(folder):
        manifest = load_manifest(folder)
        for path in _unnamed(folder, manifest):
            with contextlib.suppress(FileNotFoundError):  # a temporary one just got its name
                if path.stat().st_mtime < before:
                    path.unlink()
        expired = tuple(file for file in manifest.replaced if file.at < before)
        if expired:
            _delete(folder, manifest, expired)


def _unnamed(folder: Path, manifest: Manifest) -> list[Path]:
    named = {segment.file for segment in manifest.segments}
    named |= {file.file for file in manifest.replaced}
    files = (*folder.glob("*.parquet"), *folder.glob(".*.tmp"))
    return [path for path in files if path.name not in named]


def _delete(folder: Path, manifest: Manifest, expired: Sequence[Replaced]) -> None:
    for file in expired:
        (folder / file.file).unlink(missing_ok=True)
    kept = tuple(file for file in manifest.replaced if file not in expired)
    save_manifest(folder, Manifest(manifest.segments, kept))
