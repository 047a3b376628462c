"""A partition's manifest: which segment files make up the log, and which are to be deleted.

It also says what is missing, so that a hole is known as one, and of which topic the records are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import orjson

from models.errors import EventLogError, ManifestLost, OverlappingSegments
from streams.event_log.disk import replacing

FILE_NAME: Final = "manifest.json"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One entry of a partition's manifest. Offsets are inclusive."""

    file: str
    first_offset: int
    last_offset: int
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """A segment file that compaction took out of the log; readers may still hold its name."""

    file: str
    at: float  # wall time, epoch seconds


@dataclass(frozen=True, slots=True)
class Missing:
    """Rows that were logged and that no readable segment holds. Offsets are inclusive."""

    first_offset: int
    last_offset: int
    rows: int  # at most so many
    file: str  # the segment that held them
    expired: bool = False  # Kafka has been asked and does not hold them any more

    def __str__(self) -> str:
        return f"offsets {self.first_offset}..{self.last_offset} ({self.rows} rows of {self.file})"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Segments by first offset, never overlapping."""

    segments: tuple[SegmentInfo, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    missing: tuple[Missing, ...] = ()
    topic_id: str | None = None  # Kafka's id of the topic that the records are of

    @property
    def next_offset(self) -> int:
        """Offset after the last one logged, be it missing now; 0 for an empty log."""
        lasts = [segment.last_offset for segment in self.segments[-1:]]
        lasts += [hole.last_offset for hole in self.missing]
        return max(lasts, default=-1) + 1

    def appended(self, segment: SegmentInfo) -> Manifest:
        """With one more segment at the end. Raises EventLogError if it overlaps."""
        return replace(self, segments=_ordered((*self.segments, segment)))

    def merged(self, inputs: Sequence[SegmentInfo], output: SegmentInfo, at: float) -> Manifest:
        """With `inputs` (adjacent) replaced by `output`. Raises EventLogError if they are gone."""
        start = self.index_of(inputs[0].first_offset)
        if self.segments[start : start + len(inputs)] != tuple(inputs):
            raise EventLogError(f"segments {inputs[0].file}… were replaced meanwhile")
        kept_before, kept_after = self.segments[:start], self.segments[start + len(inputs) :]
        return replace(
            self,
            segments=_ordered((*kept_before, output, *kept_after)),
            replaced=(*self.replaced, *(Replaced(segment.file, at) for segment in inputs)),
        )

    def without(self, segment: SegmentInfo) -> Manifest:
        """With the segment's rows missing."""
        rows = Missing(segment.first_offset, segment.last_offset, segment.rows, segment.file)
        return replace(
            self,
            segments=tuple(one for one in self.segments if one != segment),
            missing=(*self.missing, rows),
        )

    def filled(
        self, hole: Missing, segments: Sequence[SegmentInfo], rest: Sequence[Missing]
    ) -> Manifest:
        """With `segments` in place of what is missing; `rest` of it still is."""
        others = tuple(one for one in self.missing if one != hole)
        return replace(self.with_segments(segments), missing=(*others, *rest))

    def with_segments(self, segments: Sequence[SegmentInfo]) -> Manifest:
        """With more segments, anywhere. Raises EventLogError if they overlap."""
        together = sorted((*self.segments, *segments), key=lambda one: one.first_offset)
        return replace(self, segments=_ordered(tuple(together)))

    def index_of(self, offset: int) -> int:
        """Position of the first segment that ends at or after `offset`."""
        return bisect_left(self.segments, offset, key=lambda segment: segment.last_offset)

    def within(self, first: int, last: int) -> tuple[SegmentInfo, ...]:
        """Segments that may hold offsets first..last (inclusive)."""
        found = self.segments[self.index_of(first) :]
        return tuple(segment for segment in found if segment.first_offset <= last)

    def missing_within(self, first: int, last: int) -> tuple[Missing, ...]:
        """What is missing of offsets first..last (inclusive)."""
        return tuple(
            hole for hole in self.missing if hole.first_offset <= last and hole.last_offset >= first
        )


def _ordered(segments: tuple[SegmentInfo, ...]) -> tuple[SegmentInfo, ...]:
    for earlier, later in pairwise(segments):
        if later.first_offset <= earlier.last_offset:
            raise OverlappingSegments(f"segments {earlier.file} and {later.file} overlap")
    return segments


def file_name(first: int, last: int) -> str:
    """Name of the segment that holds offsets first..last (inclusive)."""
    return f"{first:020d}-{last:020d}.parquet"


def load_manifest(folder: Path) -> Manifest:
    """Read a partition's manifest; an absent one is empty where no segments are.

    Raises ManifestLost if it is absent or damaged, and EventLogError if it cannot be read, or is
    of another version.
    """
    path = folder / FILE_NAME
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        if any(folder.glob("*.parquet")):
            raise ManifestLost(f"{path} is gone, and segments are beside it") from None
        return Manifest()
    except OSError as error:
        raise EventLogError(f"cannot read {path}: {error.strerror}; make it readable") from error
    except ValueError as error:
        raise ManifestLost(f"{path} is damaged: {error}") from error
    return _parsed(path, content)


def _parsed(path: Path, content: Any) -> Manifest:
    try:
        if content["version"] > VERSION:
            raise _of_another_version(path, content["version"])
        return Manifest(
            _ordered(tuple(_segment(**segment) for segment in content["segments"])),
            tuple(Replaced(**file) for file in content["replaced"]),
            tuple(Missing(**hole) for hole in content.get("missing", ())),
            content.get("topic_id"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverlappingSegments) as error:
        raise ManifestLost(f"{path} is damaged: {error!r}") from error


def _of_another_version(path: Path, version: int) -> EventLogError:
    return EventLogError(
        f"{path} is of version {version}, this Palate reads {VERSION}; use the one that wrote it"
    )


def _segment(**fields: Any) -> SegmentInfo:
    segment = SegmentInfo(**fields)
    if segment.file != file_name(segment.first_offset, segment.last_offset):
        raise ValueError(f"{segment.file} is not named by its offsets")
    return segment


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Swap the manifest in one step."""
    content = {
        "version": VERSION,
        "topic_id": manifest.topic_id,
        "segments": [asdict(segment) for segment in manifest.segments],
        "replaced": [asdict(file) for file in manifest.replaced],
        "missing": [asdict(hole) for hole in manifest.missing],
    }
    with replacing(folder / FILE_NAME) as path:
        path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
