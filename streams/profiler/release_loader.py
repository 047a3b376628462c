"""What each release writes profiles with: an adapter of the engine and an embedder.

The serving release writes; a candidate is loaded beside it and proven, so that a
switch is the change of one pointer, and the previous one's is kept, so that a rollback is too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import EngineError, EngineUnavailable, ReleaseError
from models.ports import Adapter, CanaryLine, ProfileEncoder, Release, ReleaseStore, TextEmbedder
from models.release.canary import adapter_shows, check_embedder
from models.release.compatibility import cannot_load, unfit
from models.release.store import (
    BASE_RELEASE,
    adapter_folder,
    base_release,
    embedder_folder,
    embedder_hash,
)
from models.settings import Settings

log = logging.getLogger(__name__)

AGAIN_S: Final = 2.0  # between tries of an engine that does not answer
WARM_UP_TOKENS: Final = 16  # what is slow the first time is slow at the first token


@dataclass(frozen=True, slots=True)
class Sources:
    """Where releases lie and how their embedders load.

    `model_hash` as in models.release.compatibility.
    """

    releases: ReleaseStore
    load_embedder: Callable[[Path], TextEmbedder]
    model_hash: str = ""


@dataclass(frozen=True, slots=True)
class LoadedRelease:
    """What one release writes profiles with; `adapter` is None for the model as it is."""

    release: str
    adapter: str | None
    embedder: TextEmbedder


class ReleaseLoader:
    """Loads each release once. `encoder` is None where profiles are extractive by setting."""

    def __init__(
        self,
        settings: Settings,
        encoder: ProfileEncoder | None,
        embedder: TextEmbedder,
        sources: Sources,
    ) -> None:
        self._settings, self._encoder, self._sources = settings, encoder, sources
        self._configured = embedder
        self._loaded: dict[str, LoadedRelease] = {}
        self._embedders: dict[str, TextEmbedder] = {}  # releases' own, by hash
        self._shown: set[str] = set()  # releases whose adapter was on when it was looked at
        self._loading = asyncio.Lock()

    async def of(self, release_id: str) -> LoadedRelease:
        """A release, loaded if it is not. A server that is away is asked again later.

        Raises ReleaseError, EngineError or EmbedderError, each saying what to mend.
        """
        async with self._loading:
            if release_id not in self._loaded:
                release = await self._release(release_id)
                loaded = await self._load(release)
                try:
                    await self._prepare(release)
                except EngineUnavailable as error:  # its calls fail until it comes, and are owed
                    log.warning("adapter of release %s: %s", release_id, error)
                self._loaded[release_id] = loaded
            return self._loaded[release_id]

    async def prove(self, release_id: str) -> str | None:
        """Load a candidate and show on this engine that it works; why it does not, or None.

        Waits for an engine that is away. Raises ReleaseError, EngineError or EmbedderError.
        """
        release = await self._release(release_id)
        reason = unfit(release, self._settings, self._sources.model_hash)
        if reason:
            return reason
        async with self._loading:
            loaded = self._loaded.get(release_id) or await self._load(release)
        reason = await self._proven(release, loaded)
        if reason is None:
            self._loaded[release_id] = loaded
        return reason

    async def doubt(self, release_id: str) -> str | None:
        """Why a release that is written with does not seem to be on; None if nothing says so.

        One that was a candidate here has shown it; one that served when this process began, or
        is gone back to, has not.
        """
        loaded = self._loaded.get(release_id)
        if (
            self._encoder is None
            or loaded is None
            or loaded.adapter is None
            or loaded.release in self._shown
        ):
            return None
        release = await self._release(release_id)
        try:
            reason = await adapter_shows(self._encoder, release.canary, loaded.adapter)
        except EngineError as error:  # calls for profiles fail the same way, and are counted
            return f"it was not answered: {error}"
        if reason is None:
            self._shown.add(release_id)
        return reason

    async def keep(self, release_ids: Collection[str]) -> None:
        """Give back what other releases hold."""
        async with self._loading:
            for release_id in self._loaded.keys() - set(release_ids):
                del self._loaded[release_id]
            self._shown &= set(release_ids)
            held = [loaded.embedder for loaded in self._loaded.values()]
            self._embedders = {
                name: embedder for name, embedder in self._embedders.items() if embedder in held
            }
            if self._encoder:
                await self._encoder.keep(release_ids)  # also of one that is being proven

    async def _release(self, release_id: str) -> Release:
        """From the store, each file as it was published; base-0 is known without a store, too."""
        try:
            return await asyncio.to_thread(self._sources.releases.verify, release_id)
        except ReleaseError:
            if release_id != BASE_RELEASE or release_id in self._sources.releases.ids():
                raise
            return base_release(self._settings, created_at_ms=0)

    async def _load(self, release: Release) -> LoadedRelease:
        reason = cannot_load(release, self._settings, self._sources.model_hash)
        if reason:
            raise ReleaseError(reason)
        name = embedder_hash(release)
        folder = embedder_folder(self._sources.releases, release)
        if folder is not None and name not in self._embedders:
            load = self._sources.load_embedder
            embedder = await asyncio.to_thread(load, folder)
            await asyncio.to_thread(check_embedder, embedder, f"release {release.id}")
            self._embedders[name] = embedder
        embedder = self._embedders[name] if folder else self._configured
        return LoadedRelease(
            release.id, release.id if self._uses_adapter(release) else None, embedder
        )

    def _uses_adapter(self, release: Release) -> bool:
        """Not where the operator names what the server is asked for (profile.served_model)."""
        by_operator = self._settings.profile.served_model is not None
        return bool(release.adapter) and self._encoder is not None and not by_operator

    async def _prepare(self, release: Release) -> None:
        folder = adapter_folder(self._sources.releases, release)
        if self._encoder and folder and self._uses_adapter(release):
            await self._encoder.prepare(Adapter(release.id, folder))

    async def _proven(self, release: Release, loaded: LoadedRelease) -> str | None:
        if self._encoder is None or loaded.adapter is None:
            return None
        said = ""
        while True:
            try:
                await self._prepare(release)
                reason = await adapter_shows(self._encoder, release.canary, loaded.adapter)
                if reason is None:
                    self._shown.add(release.id)
                    await _warm_up(self._encoder, release.canary, loaded.adapter)
            except EngineUnavailable as error:
                if str(error) != said:  # once: an engine may be away for days
                    log.warning("release %s waits for the engine: %s", release.id, error)
                said = str(error)
                await asyncio.sleep(AGAIN_S)
            else:
                return reason


async def _warm_up(encoder: ProfileEncoder, lines: Sequence[CanaryLine], adapter: str) -> None:
    """One batch: an engine's first with a new adapter may take several times as long."""
    calls = (
        encoder.complete(line.prompt, max_new_tokens=WARM_UP_TOKENS, adapter=adapter)
        for line in lines
    )
    await asyncio.gather(*calls)
