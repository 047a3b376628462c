"""What readers hand to adapters, and what adapters answer. Pure values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from models.schemas import Interaction, Item


class Kind(StrEnum):
    """What a file holds; also the topic that it goes to."""

    ITEMS = "items"
    INTERACTIONS = "interactions"


@dataclass(frozen=True, slots=True)
class FileRow:
    """One record of a file; `problem` says why there are no values."""

    line: int  # of the record's first line, or its row in a Parquet file; from 1
    values: Mapping[str, Any] | None
    problem: str = ""
    # Lines inside a quoted field that have as many fields as a row.
    within: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class UnreadableCell:
    """Stands for a cell whose value Python cannot hold, such as a time before year 1."""

    why: str

    def __str__(self) -> str:
        return self.why


class ShortFloat(float):
    """A number of 16 or 32 bits: a rating fits into it, an id or a time may have been rounded."""


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A file opened for reading once, front to back."""

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[FileRow]
    fraction: Callable[[], float]  # how much of the file is read, 0 to 1
    separator: str = ""  # between fields, if lines are separated
    header_line: int = 1


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a row is left out: a short reason to count by, and the detail of this row."""

    reason: str
    detail: str


Adapted = Item | Interaction | Unusable
RowAdapter = Callable[[Mapping[str, Any]], Adapted]
