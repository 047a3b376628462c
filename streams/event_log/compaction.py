"""Merge small segments, so that files and manifests stay few however slowly events come.

Readers never wait and never break: outputs are written beside the inputs, the manifest is
swapped in one step, and replaced files stay for a grace period. A crash between any two steps
leaves either the old or the new manifest, and files that the next sweep finds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Final

import pyarrow as pa

from models.errors import EventLogError
from streams.event_log.columns import SCHEMAS
from streams.event_log.disk import exclusive
from streams.event_log.manifest import Manifest, SegmentInfo, load_manifest, save_manifest
from streams.event_log.repair import repair, sweep
from streams.event_log.segment_file import (
    conformed,
    damaged,
    opened_segment,
    origin_of,
    write_segment,
)
from streams.event_log.segments import SegmentLog

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

    Returns the number of merges. Raises SegmentDamaged if a segment cannot be read; all stays as
    it is then.
    """
    folder = log.partition_folder(topic, partition)
    if not folder.is_dir():
        return 0
    merged, manifest = 0, repair(folder)
    while run := _next_run(manifest, below_rows):
        if not _merge(folder, run):
            break
        merged, manifest = merged + 1, load_manifest(folder)
    sweep(folder, grace_s)
    return merged


def _next_run(manifest: Manifest, below_rows: int) -> tuple[SegmentInfo, ...]:
    """What is due between two holes: a segment that spans one would hide it."""
    return next(filter(None, (due(part, below_rows) for part in unbroken(manifest))), ())


def unbroken(manifest: Manifest) -> list[tuple[SegmentInfo, ...]]:
    """The segments, parted where something is missing between two of them."""
    parts: list[list[SegmentInfo]] = []
    for segment in manifest.segments:
        between = parts and (parts[-1][-1].last_offset + 1, segment.first_offset - 1)
        if between and between[0] <= between[1] and manifest.missing_within(*between):
            parts.append([])
        if not parts:
            parts.append([])
        parts[-1].append(segment)
    return [tuple(part) for part in parts]


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


def _merge(folder: Path, run: Sequence[SegmentInfo]) -> bool:
    # 1. the merged segment is durable; no lock, its inputs never change
    output = _merged(folder, run)
    # 2. the manifest names it in place of its inputs, unless another compaction was faster
    with exclusive(folder):
        manifest = load_manifest(folder)
        try:
            save_manifest(folder, manifest.merged(run, output, time.time()))
        except EventLogError:
            return False
    return True


def _merged(folder: Path, run: Sequence[SegmentInfo]) -> SegmentInfo:
    schema = SCHEMAS[folder.parent.name]
    with opened_segment(folder, run[0].file) as opened:
        of = origin_of(opened)
    of = replace(of, topic_id=load_manifest(folder).topic_id)
    span = run[0].first_offset, run[-1].last_offset
    return write_segment(folder, _row_groups(folder, run, schema), schema, span, of)


def _row_groups(folder: Path, run: Sequence[SegmentInfo], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a run as tables of one row group each, holding one in memory at a time."""
    held: list[pa.Table] = []
    for segment in run:
        for table in _tables(folder, segment, schema):
            held.append(table)
            if _is_full(held):
                yield pa.concat_tables(held).combine_chunks()
                held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _tables(folder: Path, segment: SegmentInfo, schema: pa.Schema) -> Iterator[pa.Table]:
    """All rows of a segment. Raises SegmentDamaged if they are not as many as it had."""
    rows = 0
    with opened_segment(folder, segment.file) as opened:
        for batch in opened.iter_batches(GROUP_ROWS // 16):
            rows += batch.num_rows
            yield conformed(pa.Table.from_batches([batch]), schema)
    if rows != segment.rows:
        raise damaged(folder, segment.file, f"it holds {rows} rows of {segment.rows}")


def _is_full(held: Sequence[pa.Table]) -> bool:
    rows, size = sum(table.num_rows for table in held), sum(table.nbytes for table in held)
    return rows >= GROUP_ROWS or size >= GROUP_BYTES
