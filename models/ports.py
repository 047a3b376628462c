"""The places where Palate meets a heavy library or a disk, as small Protocols.

models/fakes.py ships a second implementation of each; tests/contracts runs one suite on both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # [n, dimension], rows of unit length


@dataclass(frozen=True, slots=True)
class Completion:
    """What the language model wrote for one prompt."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    model: str


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA to be put on the language model."""

    name: str  # the release's id; what completions say as their model
    folder: Path  # as PEFT writes it


class ProfileEncoder(Protocol):
    """A language model that continues prompts, as it is or with an adapter on it.

    All calls raise EngineUnavailable when another try may help, EngineError when it would not.
    """

    model: str

    async def complete(
        self, prompt: str, *, max_new_tokens: int, adapter: str | None = None
    ) -> Completion:
        """Continue one rendered prompt; many calls may be under way at once.

        `adapter` names one that was given to `prepare`; None asks the model as it is.
        """
        ...

    async def prepare(self, adapter: Adapter) -> None:
        """Make an adapter ready beside what is in use; nothing if it is."""
        ...

    async def keep(self, adapters: Collection[str]) -> None:
        """Only these are asked for from now on; what others hold may be given back."""
        ...

    async def log_prob(self, prompt: str, text: str, *, adapter: str | None = None) -> float:
        """Natural logarithm of the probability of `text` after `prompt`, summed over its tokens.

        Without an end of turn, at temperature 1. Both are made into tokens apart.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Number of tokens of `text` for this model."""
        ...

    async def healthy(self) -> bool:
        """Whether a call made now is likely to be answered."""
        ...

    async def close(self) -> None:
        """Release what the engine holds."""
        ...


class TextEmbedder(Protocol):
    """Text → unit vectors."""

    model: str
    dimension: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[len(texts), dimension], each row of length 1."""
        ...


@dataclass(frozen=True, slots=True)
class VectorRow:
    """One vector with the text that it was made from and where it came from."""

    id: str
    vector: NDArray[np.float32]  # [dimension]
    text: str
    sequence: int  # grows with every write of the one writer; readers ask "newer than"
    attributes: Mapping[str, Any]


class VectorIndex(Protocol):
    """Named tables of vectors, `items@<release>` and `profiles@<release>`. One writer.

    All methods raise VectorIndexError for a table that cannot be read or written, and
    VectorIndexUnavailable where that may pass: a full disk.
    """

    def upsert(self, table: str, rows: Sequence[VectorRow]) -> None:
        """Insert or replace by id, in one table version. Creates the table at first use."""
        ...

    def remove(self, table: str, ids: Sequence[str]) -> None:
        """Delete by id; unknown ids are ignored. Readers learn of it from `newer_than`."""
        ...

    def newer_than(self, table: str, sequence: int) -> list[VectorRow]:
        """All rows written after `sequence` (-1: all), in order of sequence, then id.

        A removed row comes as a tombstone, with attributes {"removed": True}, until an
        `optimize` that finds it older than any reader.
        """
        ...

    def get(self, table: str, ids: Sequence[str]) -> dict[str, VectorRow]:
        """The rows of these ids that are in the table; no tombstones."""
        ...

    def ids(self, table: str) -> set[str]:
        """Ids now in the table; empty if there is no such table."""
        ...

    def search(self, table: str, vectors: Vectors, k: int) -> list[list[tuple[str, float]]]:
        """Per query row the k nearest (id, cosine similarity), best first, ties by id."""
        ...

    def version(self, table: str) -> int:
        """Grows with every change of the table; 0 if there is none."""
        ...

    def optimize(self, table: str) -> None:
        """Merge small fragments and drop versions past the retention."""
        ...

    def drop(self, table: str) -> None:
        """Remove the whole table, damaged or not; unknown names are ignored."""
        ...

    def verify(self, table: str) -> None:
        """Raise VectorIndexError if the table is there and damaged."""
        ...


@dataclass(frozen=True, slots=True)
class CanaryLine:
    """A fixed text by which an engine shows that an adapter is on (models/release/canary.py).

    Natural logarithms, summed over the tokens of `text` after `prompt`, without an end of turn.
    """

    prompt: str
    text: str
    logprob: float  # by the base model with the adapter
    base_logprob: float  # by the base model alone


@dataclass(frozen=True, slots=True)
class Release:
    """One release as its manifest states it (models/release/store.py reads and writes it).

    `adapter` is a path inside the release's folder; so is `embedder` where such a folder is
    there, otherwise it is a bundled name, a folder or a hub id, as in the settings.
    """

    id: str
    base_model: str
    adapter: str | None
    embedder: str
    prompt_version: str
    window_spec: Mapping[str, Any]
    created_at: str  # RFC 3339
    metrics: Mapping[str, Any]
    manifest_sha256: str = ""  # filled in when it is published
    hashes: Mapping[str, str] = field(default_factory=dict)  # sha256 of base models, by file name
    files: Mapping[str, str] = field(default_factory=dict)  # sha256 of its own, by relative path
    data_range: Mapping[str, Any] = field(default_factory=dict)  # what it was trained on
    base_model_hash: str = ""  # models.engines.model_files.base_model_hash; empty: not known
    canary: tuple[CanaryLine, ...] = ()
    parent: str | None = None  # the release that training went on from
    kind: str = "base"  # base, starter, trained


@dataclass(frozen=True, slots=True)
class InForce:
    """A release that serves, and when it was announced as serving.

    The same release at another time was put in force anew: another one has served in between.
    """

    release: str
    since: int = 0  # `at` of the announcement, epoch ms; compared for equality, never for order


class ReleaseStore(Protocol):
    """Immutable release folders."""

    def publish(self, release: Release, files: Mapping[str, Path] | None = None) -> Release:
        """Write a new folder with copies of `files` (relative path → source, a file or folder).

        All of it appears at once or not at all. What is returned names every file's hash. The
        same content twice is fine. Raises ReleaseError if the id exists with other content, or
        if the disk cannot take it.
        """
        ...

    def get(self, release_id: str) -> Release:
        """Raises ReleaseError if unknown or changed since."""
        ...

    def ids(self) -> list[str]:
        """All published ids, oldest first."""
        ...

    def folder(self, release_id: str) -> Path:
        """Where the release's files lie. Raises ReleaseError if it is unknown."""
        ...

    def verify(self, release_id: str) -> Release:
        """The release, once every file of it was read and found as published; else ReleaseError."""
        ...
