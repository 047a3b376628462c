"""Which release is in force: the last `serving` record of topic `releases`."""

from __future__ import annotations

import asyncio
import logging

from models.schemas import ReleaseAnnouncement
from streams.codec import Record, Rejected, decode

log = logging.getLogger(__name__)


class ServingRelease:
    """Follows topic `releases`; give `on_record` to a TopicFollower."""

    def __init__(self) -> None:
        self.id: str | None = None
        self._known = asyncio.Event()

    def on_record(self, record: Record) -> None:
        """Take in one record."""
        found = decode(record.value, ReleaseAnnouncement)
        if isinstance(found, Rejected):
            log.warning("releases/%s@%s: %s", record.partition, record.offset, found.detail)
        elif found.status == "serving":
            self.id = found.release
            self._known.set()

    async def known(self) -> str:
        """The first release in force, as soon as there is one."""
        await self._known.wait()
        assert self.id is not None
        return self.id
