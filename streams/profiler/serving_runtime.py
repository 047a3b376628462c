"""The release that serves now: profiles are written with it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from models.errors import PalateError
from streams.metrics import ProfilerMetrics
from streams.profiler.release_loader import LoadedRelease, ReleaseLoader
from streams.releases import AGAIN_S, ServingRelease, unavailable

log = logging.getLogger(__name__)


class ServingRuntime:
    """The release that profiles are written with now.

    It changes once the serving release is loaded; work under way ends with the one
    that it began with. While the release in force cannot be loaded here, the newest one before it
    that can is at work, and `problem` says why.
    """

    def __init__(
        self, loader: ReleaseLoader, releases: ServingRelease, metrics: ProfilerMetrics
    ) -> None:
        self._loader, self._releases, self._metrics = loader, releases, metrics
        self._loaded: LoadedRelease | None = None
        self._kept: tuple[str, ...] = ()
        self.problem: str | None = None

    async def begin(self) -> None:
        """Load the release that serves; waits for one."""
        await self._releases.known()
        await self._take_up()
        while self._loaded is None:
            await self._change()
            await self._take_up()

    def now(self) -> LoadedRelease:
        """The loaded release to begin work with."""
        assert self._loaded is not None, "asked before begin"
        return self._loaded

    async def follow(self) -> None:
        """Take up each release that comes to serve, for ever."""
        while True:
            await self._take_up()
            kept = (self.now().release, *self._releases.wanted)
            if self._kept != kept:
                self._kept = kept
                await self._loader.keep(kept)
                await self._look()
                continue  # a record may have come meanwhile
            await self._change()

    async def _change(self) -> None:
        """Wait for the next record, or the time to try again."""
        if self.problem is None and self.now().release != self._releases.id:
            return  # it came while the one before was loaded
        with suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S if self.problem else None):
                await self._releases.change()

    async def _look(self) -> None:
        """Say where an adapter that is written with is not on: the texts would not tell."""
        loaded = self.now()
        try:
            doubt = await self._loader.doubt(loaded.release)
        except PalateError as error:
            doubt = str(error)
        if doubt:
            log.error("release %s writes, but its canary is off: %s", loaded.release, doubt)

    async def _take_up(self) -> None:
        """The newest release in force that can be loaded."""
        failed: tuple[str, PalateError] | None = None
        for release in self._releases.in_force:
            try:
                loaded = await self._loader.of(release)
            except PalateError as error:
                failed = failed or (release, error)
                continue
            self._write_with(loaded)
            break
        self._note(failed)

    def _write_with(self, loaded: LoadedRelease) -> None:
        if self._loaded is not loaded:
            log.info("writing with release %s", loaded.release)
        self._loaded = loaded

    def _note(self, failed: tuple[str, PalateError] | None) -> None:
        serving = self._loaded.release if self._loaded else None
        problem = unavailable(*failed, serving) if failed else None
        if problem and problem != self.problem:
            log.error("%s", problem)
        self.problem = problem
        self._metrics.release_unavailable.set(bool(problem))

    @property
    def not_ready(self) -> str | None:
        """Why nothing can be written; None if something can."""
        return self.problem if self._loaded is None else None
