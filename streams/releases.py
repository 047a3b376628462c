"""Which release is in force and which is being made ready: what topic `releases` says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from models.errors import PalateError
from models.ports import Release
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.codec import Record, Rejected, Removal, decode_keyed, key_of
from streams.kafka.clients import deliver

log = logging.getLogger(__name__)

AGAIN_S: Final = 5.0  # between looks for a release in force that cannot be served


# Announcing a step of a release's life on topic `releases`.


async def announce(
    producer: AIOKafkaProducer,
    settings: Settings,
    release: Release | str,
    status: str,
    by: str,
    **more: Any,
) -> ReleaseAnnouncement:
    """Send one step of a release (of its id, where the folder is gone), and await its arrival.

    `more`: `previous` and `detail` of the announcement, where they apply.
    """
    known = release if isinstance(release, Release) else None
    step = ReleaseAnnouncement.model_validate(
        {
            "release": known.id if known else release,
            "status": status,
            "manifest_sha256": known.manifest_sha256 if known else None,
            "at": time.time_ns() // 1_000_000,
            "by": by,
            **more,
        }
    )
    topic = settings.topic("releases")
    await deliver(producer, topic, step.to_json(), key=key_of(step))
    log.info("release %s: %s", step.release, status)
    return step


def unavailable(release: str, error: PalateError, serving: str | None) -> str:
    """What a role says of a release in force that it cannot serve; `serving`: what it serves."""
    meanwhile = f"{serving} serves on" if serving else "no release before it can be served either"
    return (
        f"release {release} is announced as serving and cannot be served here: {error}. "
        f"{meanwhile}; it is tried again every {AGAIN_S:g} s. Publish it again, or bring its "
        "folder, or go back: palate releases rollback"
    )


class ServingRelease:
    """Follows topic `releases`; give `on_record` to a TopicFollower.

    Whoever reads it must be of the follower's event loop, or be content with a value that has
    just changed.
    """

    def __init__(self) -> None:
        self.id: str | None = None  # the release in force
        self._served: list[str] = []  # all that were in force and are not retired, oldest first
        self._since: dict[str, int] = {}  # release → `at` of its last `serving` record
        self._published: str | None = None  # last; None once it is refused, retired or serves
        self._steps: dict[str, dict[tuple[str, str], ReleaseAnnouncement]] = {}
        self._changed = asyncio.Event()

    def on_record(self, record: Record) -> None:
        """Take in one record."""
        found = decode_keyed(record, ReleaseAnnouncement, partitions=1)
        if isinstance(found, Rejected):
            log.warning("releases/%s@%s: %s", record.partition, record.offset, found.detail)
        elif not isinstance(found, Removal):
            self.take(found)

    def take(self, step: ReleaseAnnouncement) -> None:
        """Take in one step."""
        if step.status == "published" and step.release != self.id:
            self._steps[step.release] = {}
        self._steps.setdefault(step.release, {})[step.status, step.by] = step
        match step.status:
            case "published":
                self._published = step.release
            case "serving":
                self._serve(step)
            case "refused":
                self._end_candidacy(step.release)
            case "retired":
                self._retire(step.release)
        self._changed.set()
        self._changed = asyncio.Event()

    def _serve(self, step: ReleaseAnnouncement) -> None:
        self.id = step.release
        self._since[step.release] = step.at
        self._served = [one for one in self._served if one != step.release] + [step.release]
        self._end_candidacy(step.release)
        steps = self._steps[step.release]
        for retired in [key for key in steps if key[0] == "retired"]:
            del steps[retired]

    def _retire(self, release: str) -> None:
        if release == self.id:  # by mistake: the indexer says again that it serves
            return
        self._end_candidacy(release)
        self._served = [one for one in self._served if one != release]
        del self._steps[release]

    def _end_candidacy(self, release: str) -> None:
        if release == self._published:
            self._published = None

    @property
    def in_force(self) -> tuple[str, ...]:
        """The release in force, then those before it, newest first.

        Anybody can announce a release, one that is nowhere too. A role serves the first of these
        that it can serve.
        """
        return tuple(reversed(self._served))

    @property
    def previous(self) -> str | None:
        """The release in force before, unless it was retired."""
        return next(iter(self.in_force[1:]), None)

    @property
    def candidate(self) -> str | None:
        """The release last published, unless it was refused or retired since, or serves."""
        return self._published if self._published != self.id else None

    @property
    def wanted(self) -> tuple[str, ...]:
        """The releases that every role has at hand: serving, candidate and previous one."""
        return tuple(dict.fromkeys(one for one in (self.id, self.candidate, self.previous) if one))

    @property
    def releases(self) -> frozenset[str]:
        """All releases that were announced and are not retired."""
        return frozenset(self._steps)

    def steps(self, release: str) -> list[ReleaseAnnouncement]:
        """The release's steps since it was last published, in the order of their first time."""
        return list(self._steps.get(release, {}).values())

    def has(self, release: str, status: str) -> bool:
        """Whether the release took this step since it was last published, by anyone."""
        return any(step.status == status for step in self.steps(release))

    def by(self, release: str, status: str) -> frozenset[str]:
        """Who made this step of the release since it was last published."""
        return frozenset(step.by for step in self.steps(release) if step.status == status)

    def since(self, release: str) -> int:
        """`at` of the announcement that put the release in force last, epoch ms; 0: not known."""
        return self._since.get(release, 0)

    async def change(self) -> None:
        """Wait for the next record."""
        await self._changed.wait()

    async def until(self, condition: Callable[[ServingRelease], bool]) -> None:
        """Wait until `condition` of this holds; it is asked after every record."""
        while not condition(self):
            await self.change()

    async def known(self) -> str:
        """The release in force, as soon as there is one."""
        await self.until(lambda releases: releases.id is not None)
        assert self.id is not None
        return self.id
