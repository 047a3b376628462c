"""What became of a partition's files, and making good what can be made good.

The manifest is the word; but it may be lost, name a file that is gone, or not know one that is
there (a crash left it, or somebody restored it from a backup). Whatever intact segments hold and
the log does not is taken in; what is lost is noted as missing, for the recorder to read again
from Kafka. Only what a manifest has named and then replaced is ever deleted: every other file
that the log cannot use is set apart, in the folder `apart` beside it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from models.errors import ManifestLost, SegmentDamaged
from streams.event_log.columns import SCHEMAS
from streams.event_log.disk import exclusive, not_written
from streams.event_log.manifest import (
    FILE_NAME,
    Manifest,
    Missing,
    SegmentInfo,
    load_manifest,
    save_manifest,
)
from streams.event_log.segment_file import (
    SegmentOrigin,
    conformed,
    damaged,
    is_whole,
    read_segment,
    span_in,
    span_of,
    verify,
    write_segment,
)

log = logging.getLogger(__name__)

APART: Final = "apart"
_SHOWN: Final = 5
OffsetSpan = tuple[int, int]  # first and last offset, inclusive


class Found(NamedTuple):
    """A segment file that no manifest speaks for, verified."""

    info: SegmentInfo
    origin: SegmentOrigin


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a found segment that the log lacks."""

    found: Found
    span: OffsetSpan

    @property
    def is_all(self) -> bool:
        """Whether that is the whole segment."""
        return self.span == (self.found.info.first_offset, self.found.info.last_offset)


# Pure: which parts of which segments.


def pieces(kept: Sequence[SegmentInfo], found: Iterable[Found]) -> list[Piece]:
    """What of the found segments holds offsets that neither `kept` nor larger ones hold."""
    covered = [(segment.first_offset, segment.last_offset) for segment in kept]
    chosen = []
    for one in sorted(found, key=lambda one: one.info.first_offset - one.info.last_offset):
        spans = uncovered((one.info.first_offset, one.info.last_offset), covered)
        chosen += [Piece(one, span) for span in spans]
        covered += spans
    return chosen


def uncovered(span: OffsetSpan, covered: Iterable[OffsetSpan]) -> list[OffsetSpan]:
    """The parts of `span` that no span of `covered` holds, ascending."""
    first, last = span
    rest = []
    for begin, end in sorted(covered):
        if end < first or begin > last:
            continue
        if begin > first:
            rest.append((first, begin - 1))
        first = end + 1
    return [*rest, (first, last)] if first <= last else rest


def holes(segments: Sequence[SegmentInfo], missing: Iterable[Missing]) -> list[Missing]:
    """Of what is missing, that which none of the segments holds."""
    covered = [(segment.first_offset, segment.last_offset) for segment in segments]
    return [
        replace(hole, first_offset=first, last_offset=last, rows=min(hole.rows, last - first + 1))
        for hole in missing
        for first, last in uncovered((hole.first_offset, hole.last_offset), covered)
    ]


# On the disk; those that change something hold the partition's lock.


def repair(folder: Path) -> Manifest:
    """Bring manifest and files into agreement; the manifest as it is then.

    Costs a listing of the folder where nothing is wrong.
    """
    if not folder.is_dir():
        return Manifest()
    with exclusive(folder):
        return repaired(folder)


def repaired(folder: Path) -> Manifest:
    """As `repair`, under the lock that the caller holds."""
    manifest, done = _manifest_or_none(folder)
    gone = [segment for segment in manifest.segments if not is_whole(folder, segment)]
    lost = manifest
    for segment in gone:
        lost = lost.without(segment)
        done.append(f"{folder / segment.file} is gone or cut off")
    healed = _with_found(folder, lost, done)
    # 1. the log no longer rests on what is gone  2. its remains are moved
    if done:
        save_manifest(folder, healed)
        log.warning("; ".join(done))
    for segment in gone:
        set_file_apart(folder, segment.file)
    return healed


def _manifest_or_none(folder: Path) -> tuple[Manifest, list[str]]:
    try:
        return load_manifest(folder), []
    except ManifestLost as error:
        if (folder / FILE_NAME).exists():
            set_file_apart(folder, FILE_NAME)
        return Manifest(), [f"{error}; it was made again from the segments"]


def _with_found(folder: Path, manifest: Manifest, done: list[str]) -> Manifest:
    """The manifest with what unnamed segments hold and it lacks; notes in `done` what it took."""
    found, broken = _unnamed(folder, manifest, deep=True)
    topic_id = manifest.topic_id or _topic_id(found)
    ours = [one for one in found if not _is_foreign(one, topic_id)]
    made = (_made_whole(folder, piece) for piece in pieces(manifest.segments, ours))
    taken = [segment for segment in made if segment is not None]
    if taken:
        spans = ", ".join(f"{one.first_offset}..{one.last_offset}" for one in taken[:_SHOWN])
        done.append(f"{folder}: {len(taken)} segments were taken into the log ({spans} …)")
    names = {segment.file for segment in taken}
    grown = replace(
        manifest.with_segments(taken),
        replaced=tuple(file for file in manifest.replaced if file.file not in names),
        missing=tuple(holes(taken, manifest.missing)),
        topic_id=topic_id,
    )
    if manifest.segments or manifest.missing:
        return grown
    return replace(grown, missing=tuple(_lost(folder, grown.segments, ours, broken)))


def as_found(folder: Path) -> Manifest:
    """For readers of a partition whose manifest is lost: what the segments alone say.

    Changes nothing. Raises ManifestLost where segments would have to be cut.
    """
    found, broken = _unnamed(folder, Manifest(), deep=False)
    topic_id = _topic_id(found)
    ours = [one for one in found if not _is_foreign(one, topic_id)]
    chosen = pieces((), ours)
    if not all(piece.is_all for piece in chosen):
        raise ManifestLost(
            f"{folder / FILE_NAME} is gone or damaged, and segments beside it overlap: start the "
            "recorder (palate up) or run `palate check log`, which make it again from them"
        )
    grown = Manifest(topic_id=topic_id).with_segments([piece.found.info for piece in chosen])
    return replace(grown, missing=tuple(_lost(folder, grown.segments, ours, broken)))


def _lost(
    folder: Path,
    segments: Sequence[SegmentInfo],
    found: Iterable[Found],
    broken: Iterable[SegmentDamaged],
) -> list[Missing]:
    """What a log that was put together from its segments alone is known to lack."""
    names = [*(error.file for error in broken), *(path.name for path in apart(folder))]
    by_name = _by_name(names)
    return holes(segments, _disjoint([*by_name, *_between(segments, found, by_name)]))


def _disjoint(missing: Sequence[Missing]) -> list[Missing]:
    """Each offset once: segments of different sizes may have held it."""
    known: list[Missing] = []
    for hole in missing:
        spans = [(one.first_offset, one.last_offset) for one in known]
        for first, last in uncovered((hole.first_offset, hole.last_offset), spans):
            rows = min(hole.rows, last - first + 1)
            known.append(replace(hole, first_offset=first, last_offset=last, rows=rows))
    return known


def _unnamed(
    folder: Path, manifest: Manifest, *, deep: bool
) -> tuple[list[Found], list[SegmentDamaged]]:
    """The segment files that are not in the log: (intact ones, what is wrong with the others)."""
    named = {segment.file for segment in manifest.segments}
    superseded = {file.file for file in manifest.replaced} if not manifest.missing else set()
    found, broken = [], []
    for path in sorted(folder.glob("*.parquet")):
        if path.name in named or path.name in superseded:
            continue
        try:
            found.append(Found(*verify(folder, path.name, deep=deep)))
        except SegmentDamaged as error:
            broken.append(error)
    return found, broken


def _topic_id(found: Sequence[Found]) -> str | None:
    """The id that most rows are of."""
    rows: dict[str, int] = {}
    for one in found:
        if one.origin.topic_id:
            rows[one.origin.topic_id] = rows.get(one.origin.topic_id, 0) + one.info.rows
    return max(rows, key=lambda name: rows[name], default=None)


def _is_foreign(one: Found, topic_id: str | None) -> bool:
    return bool(one.origin.topic_id and topic_id and one.origin.topic_id != topic_id)


def _by_name(files: Iterable[str]) -> list[Missing]:
    """What segments held that cannot be read, by their names."""
    spans = ((file, span_of(file)) for file in files)
    return [Missing(*span, span[1] - span[0] + 1, file) for file, span in spans if span]


def _between(
    segments: Sequence[SegmentInfo], found: Iterable[Found], broken: Iterable[Missing]
) -> list[Missing]:
    """What lay before segments that say from where on they are complete, and is not there.

    One that is broken does not say it any more: what lay before it may be missing.
    """
    starts = {one.info.first_offset: one.origin.start for one in found}
    spans = [
        *((one.first_offset, one.last_offset, starts.get(one.first_offset)) for one in segments),
        *((one.first_offset, one.last_offset, one.first_offset) for one in broken),
    ]
    lost, end = [], 0
    for _, last, start in sorted(spans, key=lambda span: span[:2]):
        if start is not None and start > end:
            lost.append(Missing(end, start - 1, start - end, "a segment that is gone"))
        end = max(end, last + 1)
    return lost


def _made_whole(folder: Path, piece: Piece) -> SegmentInfo | None:
    """The piece as a segment of its own; None if it holds no rows."""
    found = piece.found
    if piece.is_all:
        return found.info
    batches = list(read_segment(folder, found.info, *piece.span, None))
    if not batches:
        return None
    schema = SCHEMAS[folder.parent.name]
    table = conformed(pa.Table.from_batches(batches), schema)
    of = replace(found.origin, start=piece.span[0])
    return write_segment(folder, iter([table]), schema, span_in(table), of)


def set_apart(folder: Path, file: str) -> str | None:
    """Take a segment that cannot be read out of the log; what is lost by it, None if nothing.

    It is read once more first: what can be read stays.
    """
    with exclusive(folder):
        manifest = load_manifest(folder)
        segment = next((one for one in manifest.segments if one.file == file), None)
        if segment is None or _reads(folder, file):
            return None
        # 1. the log no longer rests on it  2. what replaced files still hold  3. it is moved
        save_manifest(folder, manifest.without(segment))
        set_file_apart(folder, file)
        healed = repaired(folder)
    left = healed.missing_within(segment.first_offset, segment.last_offset)
    return f"missing: {', '.join(map(str, left))}" if left else "nothing is missing"


def _reads(folder: Path, file: str) -> bool:
    try:
        verify(folder, file)
    except SegmentDamaged:
        return False
    return True


def set_file_apart(folder: Path, file: str) -> None:
    """Move a file into the folder `apart`, beside whatever is there already."""
    target = folder / APART / file
    number = 0
    while target.exists():
        number += 1
        target = target.with_name(f"{file}.{number}")
    try:
        target.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # it is gone
            os.rename(folder / file, target)  # noqa: PTH104 (tests of crashes intercept it)
            log.warning("%s was set apart: %s", folder / file, target)
    except OSError as error:
        raise not_written(target, error) from error


def apart(folder: Path) -> list[Path]:
    """The files of a partition that were set apart."""
    return sorted((folder / APART).glob("*"))


def sweep(folder: Path, grace_s: float) -> int:
    """Delete what was replaced, or is a draft that a crash left, more than `grace_s` ago.

    Segments that no manifest names are set apart. Returns how many those are.
    """
    before = time.time() - grace_s
    with exclusive(folder):
        manifest = repaired(folder)
        expired = tuple(file for file in manifest.replaced if file.at < before)
        # 1. the files are gone  2. the manifest forgets them
        for file in expired:
            (folder / file.file).unlink(missing_ok=True)
        if expired:
            kept = tuple(file for file in manifest.replaced if file not in expired)
            save_manifest(folder, replace(manifest, replaced=kept))
        for draft in _older(folder.glob(".*.tmp"), before):
            draft.unlink(missing_ok=True)
        strange = list(_older(_strangers(folder, manifest), before))
        for path in strange:
            set_file_apart(folder, path.name)
    return len(strange)


def _strangers(folder: Path, manifest: Manifest) -> Iterator[Path]:
    named = {segment.file for segment in manifest.segments}
    named |= {file.file for file in manifest.replaced}
    return (path for path in folder.glob("*.parquet") if path.name not in named)


def _older(paths: Iterable[Path], before: float) -> Iterator[Path]:
    for path in list(paths):
        with suppress(FileNotFoundError):  # a draft just got its name
            if path.stat().st_mtime < before:
                yield path


def inspected(folder: Path) -> list[SegmentDamaged]:
    """Read every byte of a partition's segments; what cannot be read."""
    broken = []
    for segment in load_manifest(folder).segments:
        try:
            info, _ = verify(folder, segment.file)
            if info != segment:
                raise damaged(folder, segment.file, f"it holds {info.rows} rows of {segment.rows}")
        except SegmentDamaged as error:
            broken.append(error)
    return broken


def check(folder: Path) -> Manifest:
    """Repair a partition, read all of it, and set apart what cannot be read."""
    repair(folder)
    for broken in inspected(folder):
        set_apart(folder, broken.file)
    return load_manifest(folder)
