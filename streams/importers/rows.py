"""What readers hand to adapters, and what adapters answer. Pure values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from models.schemas import Interaction, Item


class Kind(StrEnum):
    """What a file holds; also the topic that it goes to."""

    ITEMS = "items"
    INTERACTIONS = "interactions"


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file; `problem` says why there are no values."""

    line: int  # of the record's first line, or its row in a Parquet file; from 1
    values: Mapping[str, Any] | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A file opened for reading once, front to back."""

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[Row]
    fraction: Callable[[], float]  # how much of the file is read, 0 to 1


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a row is left out: a short reason to count by, and the detail of this row."""

    reason: str
    detail: str


Adapted = Item | Interaction | Unusable
Adapter = Callable[[Mapping[str, Any]], Adapted]


@dataclass(frozen=True, slots=True)
class Layout:
    """One shape of columns that a format is found in, and the adapter for it.

    `start` makes a fresh adapter per file: some count the lines of an invoice.
    """

    required: tuple[str, ...]
    start: Callable[[], Adapter]


@dataclass(frozen=True, slots=True)
class Format:
    """A family of files: its layouts by kind, and what plain separated files need."""

    layouts: Mapping[Kind, tuple[Layout, ...]]
    encoding: str = "utf-8"
    dat_encoding: str = "latin-1"
    dat_columns: Mapping[Kind, tuple[str, ...]] | None = None  # of `::`-separated .dat files
