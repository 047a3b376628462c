"""A candidate release is proven here before it may serve, and answered for."""

from __future__ import annotations

import asyncio
import logging

from aiokafka import AIOKafkaProducer

from models.errors import PalateError
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.profiler.release_loader import ReleaseLoader
from streams.profiler.replica import Replica
from streams.releases import ServingRelease, announce

log = logging.getLogger(__name__)


class CandidateCheck:
    """Answers each candidate with `engine-ready` or `refused`, as one replica of several.

    Who promotes waits for each that lives.
    """

    def __init__(
        self, settings: Settings, loader: ReleaseLoader, releases: ServingRelease, replica: Replica
    ) -> None:
        self._settings, self._loader = settings, loader
        self._releases, self._replica = releases, replica
        self._answered: ReleaseAnnouncement | None = None

    async def run(self, producer: AIOKafkaProducer) -> None:
        """Answer candidates, for ever; one that is published again is proven again.

        A proof takes as long as the engine is away: nothing is said until then, and whoever
        promotes has a limit of their own. It ends without an answer when the candidate changes.
        """
        while True:
            published = self._publication()
            if published is None or published is self._answered:
                await self._releases.change()
                continue
            proof = asyncio.create_task(self._reason_against(published.release))
            if await self._done_in_time(proof, published):
                await self._answer(producer, published.release, proof.result())
                self._answered = published

    async def _done_in_time(
        self, proof: asyncio.Task[str | None], published: ReleaseAnnouncement
    ) -> bool:
        """Wait for the proof, at most until another candidate takes the place of `published`."""
        changed = self._releases.until(lambda _: self._publication() is not published)
        gone = asyncio.create_task(changed)
        try:
            await asyncio.wait({proof, gone}, return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            proof.cancel()
            gone.cancel()
            await asyncio.gather(proof, gone, return_exceptions=True)

    def _publication(self) -> ReleaseAnnouncement | None:
        """The candidate's `published` step."""
        candidate = self._releases.candidate
        steps = self._releases.steps(candidate) if candidate else []
        return next((step for step in steps if step.status == "published"), None)

    async def _reason_against(self, release: str) -> str | None:
        log.info("proving release %s", release)
        try:
            return await self._loader.prove(release)
        except PalateError as error:
            return str(error)

    async def _answer(self, producer: AIOKafkaProducer, release: str, reason: str | None) -> None:
        status = "refused" if reason else "engine-ready"
        if reason:
            log.warning("release %s is refused: %s", release, reason)
        by = self._replica.name
        await announce(producer, self._settings, release, status, by, detail=reason)
