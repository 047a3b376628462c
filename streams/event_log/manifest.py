"""A partition's manifest: which segment files make up the log, and which are to be deleted."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import orjson

from models.errors import EventLogError
from models.ports import SegmentInfo
from streams.event_log.disk import replacing

FILE_NAME: Final = "manifest.json"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Replaced:
    """A segment file that compaction took out of the log; readers may still hold its name."""

    file: str
    at: float  # wall time, epoch seconds


@dataclass(frozen=True, slots=True)
class Manifest:
    """Segments by first offset, never overlapping."""

    segments: tuple[SegmentInfo, ...] = ()
    replaced: tuple[Replaced, ...] = ()

    @property
    def next_offset(self) -> int:
        """Offset after the last one logged; 0 for an empty log."""
        return self.segments[-1].last_offset + 1 if self.segments else 0

    def appended(self, segment: SegmentInfo) -> Manifest:
        """With one more segment at the end. Raises EventLogError if it overlaps."""
        return replace(self, segments=_ordered((*self.segments, segment)))

    def merged(self, inputs: Sequence[SegmentInfo], output: SegmentInfo, at: float) -> Manifest:
        """With `inputs` (adjacent) replaced by `output`. Raises EventLogError if they are gone."""
        start = self.index_of(inputs[0].first_offset)
        if self.segments[start : start + len(inputs)] != tuple(inputs):
            raise EventLogError(f"segments {inputs[0].file}… were replaced meanwhile")
        kept_before, kept_after = self.segments[:start], self.segments[start + len(inputs) :]
        return Manifest(
            _ordered((*kept_before, output, *kept_after)),
            (*self.replaced, *(Replaced(segment.file, at) for segment in inputs)),
        )

    def index_of(self, offset: int) -> int:
        """Position of the first segment that ends at or after `offset`."""
        return bisect_left(self.segments, offset, key=lambda segment: segment.last_offset)

    def within(self, first: int, last: int) -> tuple[SegmentInfo, ...]:
        """Segments that may hold offsets first..last (inclusive)."""
        found = self.segments[self.index_of(first) :]
        return tuple(segment for segment in found if segment.first_offset <= last)


def _ordered(segments: tuple[SegmentInfo, ...]) -> tuple[SegmentInfo, ...]:
    for earlier, later in pairwise(segments):
        if later.first_offset <= earlier.last_offset:
            raise EventLogError(f"segments {earlier.file} and {later.file} overlap")
    return segments


def load_manifest(folder: Path) -> Manifest:
    """Read a partition's manifest; an absent one is empty.

    Raises EventLogError for one that cannot be understood.
    """
    path = folder / FILE_NAME
    try:
        content = orjson.loads(path.read_bytes())
        return _parse(content)
    except FileNotFoundError:
        return Manifest()
    except (ValueError, KeyError, TypeError, EventLogError) as error:
        raise EventLogError(
            f"{path} is not a manifest that this Palate can read ({error}); restore it from a "
            "backup: its segment files alone do not say which of them count"
        ) from error


def _parse(content: dict[str, Any]) -> Manifest:
    if content["version"] != VERSION:
        raise ValueError(f"version {content['version']}, not {VERSION}")
    return Manifest(
        _ordered(tuple(SegmentInfo(**segment) for segment in content["segments"])),
        tuple(Replaced(**file) for file in content["replaced"]),
    )


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Swap the manifest in one step."""
    content = {
        "version": VERSION,
        "segments": [asdict(segment) for segment in manifest.segments],
        "replaced": [asdict(file) for file in manifest.replaced],
    }
    with replacing(folder / FILE_NAME) as path:
        path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
