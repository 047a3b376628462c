"""Which embedder makes a release's vectors, and which releases share one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from models.errors import ReleaseError
from models.ports import Release, ReleaseStore, TextEmbedder
from models.release.canary import check_embedder
from models.release.compatibility import other_embedder
from models.release.store import embedder_folder, embedder_hash
from models.settings import Settings

Load = Callable[[Path], TextEmbedder]  # of an embedder's folder; takes seconds


class Embedders:
    """The configured embedder, and those that releases bring along.

    A release's own embedder is in memory while a caller of `of` holds it.
    """

    def __init__(
        self, settings: Settings, configured: TextEmbedder, store: ReleaseStore, load: Load | None
    ) -> None:
        self._settings, self._configured = settings, configured
        self._store, self._load = store, load
        self._hashes: dict[str, str | None] = {}  # by release id; releases never change

    async def of(self, release: Release) -> TextEmbedder:
        """The release's embedder, its files checked against the manifest.

        Raises ReleaseError if it is another one than is available here, EmbedderError if it
        cannot be loaded or does not embed.
        """
        reason = other_embedder(release, self._settings)
        if reason:
            raise ReleaseError(reason)
        folder = embedder_folder(self._store, release)
        if folder is None:
            return self._configured
        if self._load is None:
            raise ReleaseError(f"release {release.id} brings an embedder, which is not loaded here")
        await asyncio.to_thread(self._store.verify, release.id)
        embedder = await asyncio.to_thread(self._load, folder)
        await asyncio.to_thread(check_embedder, embedder, f"release {release.id}")
        return embedder

    def same(self, release_id: str, other_id: str) -> bool:
        """Whether the two releases embed alike, so that vectors of one serve the other."""
        if release_id == other_id:
            return True
        known = self._hash(release_id)
        return known is not None and known == self._hash(other_id)

    def _hash(self, release_id: str) -> str | None:
        if self._hashes.get(release_id) is None:  # its folder may have appeared since
            self._hashes[release_id] = self._read_hash(release_id)
        return self._hashes[release_id]

    def _read_hash(self, release_id: str) -> str | None:
        try:
            return embedder_hash(self._store.get(release_id))
        except ReleaseError:  # not on this machine: nothing is taken over from it
            return None
