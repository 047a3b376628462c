"""Does a topic go on where its reader ended? (architecture, property 7)

A reader that keeps what it has read, the event log or the tracker's state, remembers up to where,
and of which topic. Offsets alone do not tell: a topic that was deleted and made again may hold
more records than the old one did.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient

from models.errors import TopicError
from models.settings import Settings
from streams.kafka.clients import client_options, start_client, until_answered
from streams.kafka.topic_ids import topic_ids

log = logging.getLogger(__name__)

WATCH_S: Final = 5.0  # between two looks at the ids of the topics
GONE_S: Final = 10.0  # a topic that is unknown for longer was deleted; brokers learn of one late

_LOG_ANEW: Final = (
    "To record the new topic, keep the log of the old one: set log.dir (PALATE_LOG__DIR) to a new "
    "folder and start again; then `palate rebuild` makes the histories from it"
)
_LOG_EXPIRED: Final = (
    "If they are known to be lost, start the recorder once with log.accept_gap "
    "(PALATE_LOG__ACCEPT_GAP=true): the log keeps what it holds and goes on from there. "
    "Retention (kafka.retention_days) must outlast a recorder's outage"
)
_STATE_ANEW: Final = (
    "To go on with the new topic, let the recorder write it to a new folder (PALATE_LOG__DIR) and "
    "then run `palate rebuild`, which makes the histories from there; the log of the old topic "
    "stays as it is"
)
_STATE_EXPIRED: Final = (
    "If the event log has them, run `palate rebuild`; retention (kafka.retention_days) must "
    "outlast an outage"
)


class Kept(NamedTuple):
    """What a reader has kept of a partition."""

    keeper: str  # "the event log"
    topic: str  # full name
    partition: int
    next: int  # the offset after the last one it holds; 0: it holds nothing
    topic_id: str | None  # of the topic that it holds; None or "": not known
    anew: str  # what to do when the topic was made again
    expired: str  # what to do when records expired before they were read

    @property
    def where(self) -> str:
        """The partition, for messages."""
        return f"topic {self.topic} partition {self.partition}"

    @classmethod
    def by_log(cls, topic: str, partition: int, upto: int, topic_id: str | None) -> Kept:
        """What the event log holds before offset `upto`."""
        return cls("the event log", topic, partition, upto, topic_id, _LOG_ANEW, _LOG_EXPIRED)

    @classmethod
    def by_tracker(cls, topic: str, partition: int, upto: int, topic_id: str | None) -> Kept:
        """What the tracker's state holds before offset `upto`."""
        place = topic, partition, upto, topic_id
        return cls("the tracker's state", *place, _STATE_ANEW, _STATE_EXPIRED)


class Present(NamedTuple):
    """A partition as Kafka has it."""

    topic_id: str | None  # None or "": Kafka does not say
    beginning: int  # the first offset it still holds
    end: int  # the offset after the last one


def check_continuity(kept: Kept, present: Present, accept_gap: bool) -> int:
    """The offset to read on from. Raises TopicError if what is kept would not be continued.

    That is: the topic is another one, or records expired before they were read and `accept_gap`
    is not set.
    """
    if kept.next and is_another(kept.topic_id, present.topic_id):
        raise made_again(kept, f"its id was {kept.topic_id} and is {present.topic_id}")
    if present.end < kept.next:
        raise made_again(kept, f"it ends before offset {present.end}")
    if present.beginning > kept.next:
        lost = f"offsets {kept.next}..{present.beginning - 1} expired before they were read"
        if not accept_gap:
            raise TopicError(
                f"{kept.where} begins at offset {present.beginning}: {lost}. {kept.expired}"
            )
        log.warning("%s: %s; they are not in %s", kept.where, lost, kept.keeper)
    return max(kept.next, present.beginning)


def is_another(known: str | None, found: str | None) -> bool:
    """Whether two ids are known and of different topics."""
    return bool(known and found and known != found)


def made_again(kept: Kept, why: str) -> TopicError:
    """The refusal to read on in another topic of the same name."""
    return TopicError(
        f"{kept.where} was deleted and made again: {why}, and {kept.keeper} holds offsets up to "
        f"{kept.next - 1} of the old one. Nothing of the new one was read, Kafka keeps it. "
        f"{kept.anew}"
    )


class TopicWatch:
    """Notices that a topic was deleted, or made again, while it is being read."""

    def __init__(self, settings: Settings, names: Iterable[str]) -> None:
        """`names` without the prefix."""
        self._settings = settings
        self._topics = [settings.topic(name) for name in names]
        self._known: dict[str, str] = {}
        self._seen: dict[str, float] = {}  # monotonic time at which each was last there
        self._admin: AIOKafkaAdminClient | None = None

    async def ids(self) -> dict[str, str]:
        """Topic → id, of those that exist; waits for the broker.

        Raises TopicError if one is not what it was at the first call, or is gone.
        """
        found = await until_answered("looking up topics", self._ask)
        now = time.monotonic()
        for topic in self._topics:
            self._check(topic, found.get(topic), now)
        return found

    async def failed(self) -> None:
        """Look again and again, and raise what is found; for a role to end with."""
        while True:
            await self.ids()
            await asyncio.sleep(WATCH_S)

    async def stop(self) -> None:
        """Leave the broker; may be called twice."""
        if self._admin is not None:
            await self._admin.close()
            self._admin = None

    async def _ask(self) -> dict[str, str]:
        if self._admin is None:
            self._admin = await start_client(
                lambda: AIOKafkaAdminClient(**client_options(self._settings))
            )
        return await topic_ids(self._admin, self._topics)

    def _check(self, topic: str, found: str | None, now: float) -> None:
        if found is None:
            if now - self._seen.setdefault(topic, now) > GONE_S:
                raise TopicError(
                    f"topic {topic} was deleted while it was being read; what was read of it is "
                    "kept. Start again (palate up), which makes it anew"
                )
            return
        self._seen[topic] = now
        known = self._known.setdefault(topic, found)
        if is_another(known, found):
            raise TopicError(
                f"topic {topic} was deleted and made again while it was being read (its id was "
                f"{known} and is {found}). Nothing of the new one was kept, Kafka has it; start "
                "again (palate up) to read it from its beginning, or to be told why that is "
                "refused"
            )
