"""Shipped stand-ins for the ports: no model, no disk, no network."""

from __future__ import annotations

import asyncio
import re
import tempfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.errors import (
    EngineError,
    EngineUnavailable,
    ReleaseError,
    VectorIndexError,
)
from models.ports import Adapter, Completion, Release, VectorRow, Vectors
from models.release.files import changed, sources
from models.release.store import with_files

ScriptedAnswer = str | EngineError


class FakeEncoder:
    """ProfileEncoder that answers from a script or a function of the prompt.

    `answers` is used up in order, then `otherwise` answers. An error among the answers is
    raised. While `down`, every call raises EngineUnavailable. Calls wait while `gate` is clear.
    Probabilities are made up from a hash of adapter and text; `deaf` ignores adapters.
    """

    def __init__(
        self,
        answers: Sequence[ScriptedAnswer] = (),
        otherwise: Callable[[str], ScriptedAnswer] = lambda _: "",
        model: str = "fake",
    ) -> None:
        self.model = model
        self.prompts: list[str] = []
        self.adapters: dict[str, Path] = {}  # those that are ready
        self.down = False
        self.deaf = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._answers = list(answers)
        self._otherwise = otherwise

    async def complete(
        self, prompt: str, *, max_new_tokens: int, adapter: str | None = None
    ) -> Completion:
        """See ProfileEncoder; at most `max_new_tokens` words."""
        self.prompts.append(prompt)
        await self.gate.wait()
        self._require(adapter)
        answer = self._answers.pop(0) if self._answers else self._otherwise(prompt)
        if isinstance(answer, EngineError):
            raise answer
        words = re.findall(r"\s*\S+", answer)[:max_new_tokens]
        read, model = self.count_tokens(prompt), adapter or self.model
        return Completion("".join(words), read, len(words), 1.0, model)

    async def prepare(self, adapter: Adapter) -> None:
        """See ProfileEncoder; only asks whether the folder is there."""
        self._require(None)
        if not adapter.folder.is_dir():
            raise EngineError(f"{adapter.folder} is no adapter")
        self.adapters[adapter.name] = adapter.folder

    async def keep(self, adapters: Collection[str]) -> None:
        """See ProfileEncoder."""
        self.adapters = {n: folder for n, folder in self.adapters.items() if n in adapters}

    async def log_prob(self, prompt: str, text: str, *, adapter: str | None = None) -> float:
        """See ProfileEncoder; 0 to 10 per word, another value for another adapter."""
        self._require(adapter)
        heard = "" if self.deaf else adapter or ""
        share = zlib.crc32(f"{heard}|{prompt}|{text}".encode()) / 2**32
        return -10.0 * share * max(1, self.count_tokens(text))

    def _require(self, adapter: str | None) -> None:
        if self.down:
            raise EngineUnavailable("the fake engine is down")
        if adapter is not None and adapter not in self.adapters:
            raise EngineUnavailable(f"adapter {adapter!r} was not prepared")

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(text.split())

    async def healthy(self) -> bool:
        """Not `down`."""
        return not self.down

    async def close(self) -> None:
        """Nothing is held."""


class HashEmbedder:
    """TextEmbedder that adds up one fixed random direction per word: shared words are near."""

    def __init__(self, dimension: int = 64, model: str = "hash") -> None:
        self.model = model
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See TextEmbedder."""
        rows = [self._row(text) for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), self.dimension)

    def _row(self, text: str) -> Vectors:
        words = re.findall(r"\w+", text.lower()) or [""]
        total = np.sum([self._direction(word) for word in words], axis=0)
        return np.asarray(total / np.linalg.norm(total), np.float32)

    def _direction(self, word: str) -> Vectors:
        seed = zlib.crc32(word.encode())
        return np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)


class MemoryIndex:
    """VectorIndex in a dictionary; removed rows stay as tombstones until `optimize`."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, VectorRow]] = {}
        self._versions: dict[str, int] = {}
        self._sequence = 0

    def upsert(self, table: str, rows: Sequence[VectorRow]) -> None:
        """See VectorIndex."""
        if not rows:
            return
        held = self._tables.setdefault(table, {})
        sizes = {len(row.vector) for row in (*held.values(), *rows)}
        if len(sizes) > 1:
            raise VectorIndexError(f"table {table!r} would hold vectors of {sorted(sizes)}")
        self._write(table, rows)

    def remove(self, table: str, ids: Sequence[str]) -> None:
        """See VectorIndex."""
        held = self._tables.get(table, {})
        known = sorted(self.ids(table).intersection(ids))
        gone = [
            VectorRow(item_id, np.zeros_like(held[item_id].vector), "", 0, {"removed": True})
            for item_id in known
        ]
        if gone:
            self._write(table, gone)

    def _write(self, table: str, rows: Sequence[VectorRow]) -> None:
        self._sequence += 1
        self._versions[table] = self._versions.get(table, 0) + 1
        for row in rows:
            self._tables[table][row.id] = replace(row, sequence=self._sequence)

    def newer_than(self, table: str, sequence: int) -> list[VectorRow]:
        """See VectorIndex."""
        rows = (row for row in self._tables.get(table, {}).values() if row.sequence > sequence)
        return sorted(rows, key=lambda row: (row.sequence, row.id))

    def get(self, table: str, ids: Sequence[str]) -> dict[str, VectorRow]:
        """See VectorIndex."""
        return {row.id: row for row in self._live(table) if row.id in set(ids)}

    def ids(self, table: str) -> set[str]:
        """See VectorIndex."""
        return {row.id for row in self._live(table)}

    def search(self, table: str, vectors: Vectors, k: int) -> list[list[tuple[str, float]]]:
        """See VectorIndex."""
        rows = self._live(table)
        return [
            sorted(
                ((row.id, round(float(query @ row.vector), 6)) for row in rows),
                key=lambda pair: (-pair[1], pair[0]),
            )[:k]
            for query in vectors
        ]

    def version(self, table: str) -> int:
        """See VectorIndex."""
        return self._versions.get(table, 0) if table in self._tables else 0

    def optimize(self, table: str) -> None:
        """See VectorIndex."""
        if table in self._tables:
            self._tables[table] = {row.id: row for row in self._live(table)}

    def drop(self, table: str) -> None:
        """See VectorIndex."""
        self._tables.pop(table, None)

    def verify(self, table: str) -> None:
        """See VectorIndex."""

    def _live(self, table: str) -> list[VectorRow]:
        rows = self._tables.get(table, {}).values()
        return [row for row in rows if not row.attributes.get("removed")]


class MemoryReleaseStore:
    """ReleaseStore in a dictionary; `folder` lays a release's files out in a temporary folder."""

    def __init__(self) -> None:
        self._releases: dict[str, Release] = {}
        self._files: dict[str, dict[str, bytes]] = {}
        self._folders: dict[str, tempfile.TemporaryDirectory[str]] = {}

    def publish(self, release: Release, files: Mapping[str, Path] | None = None) -> Release:
        """See ReleaseStore."""
        found = sources(files or {})
        published = with_files(release, found)
        known = self._releases.setdefault(release.id, published)
        if known != published:
            raise ReleaseError(f"release {release.id!r} exists with other content")
        self._files[release.id] = {path: source.read_bytes() for path, source in found.items()}
        return published

    def get(self, release_id: str) -> Release:
        """See ReleaseStore."""
        if release_id not in self._releases:
            raise ReleaseError(f"there is no release {release_id!r}")
        return self._releases[release_id]

    def ids(self) -> list[str]:
        """See ReleaseStore."""
        ordered = sorted(self._releases.values(), key=lambda found: (found.created_at, found.id))
        return [release.id for release in ordered]

    def folder(self, release_id: str) -> Path:
        """See ReleaseStore."""
        self.get(release_id)
        if release_id not in self._folders:
            self._folders[release_id] = tempfile.TemporaryDirectory(prefix="release-")
            self._lay_out(release_id, Path(self._folders[release_id].name))
        return Path(self._folders[release_id].name)

    def _lay_out(self, release_id: str, folder: Path) -> None:
        for relative, content in self._files[release_id].items():
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            (folder / relative).write_bytes(content)

    def verify(self, release_id: str) -> Release:
        """See ReleaseStore."""
        release = self.get(release_id)
        wrong = changed(release.files, self.folder(release_id))
        if wrong:
            raise ReleaseError(f"release {release_id!r}: {wrong} changed since it was published")
        return release
