"""The role that owns the vectors: it keeps the tables of every release that is wanted.

Wanted are the serving release, the candidate and, so that going back takes no time, the one that
served before. While the release in force cannot be kept (its folder is not here, say), the one
before it serves on, and it is tried again. A candidate's tables are made beside the serving ones,
and announced when they are whole. A release that is wanted no longer loses its tables.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer

from models.errors import EmbedderError, PalateError, ReleaseError
from models.ports import Release, ReleaseStore, TextEmbedder, VectorIndex
from models.release.store import items_table, profiles_table
from models.settings import Settings
from streams.codec import Record
from streams.indexer.embedders import Embedders, Load
from streams.indexer.first_release import announce_first, first_release
from streams.indexer.rejects import Rejects
from streams.indexer.snapshots import Snapshots
from streams.indexer.table_sync import TOPICS, SyncTools, TableSync
from streams.indexer.tables import IndexedTable
from streams.kafka.clients import producer, start_client
from streams.kafka.consumption import ConsumptionWatch, Positions
from streams.kafka.continuity import TopicWatch
from streams.kafka.topic_follower import TopicFollower
from streams.metrics import IndexerMetrics
from streams.releases import AGAIN_S, ServingRelease, announce, unavailable
from streams.role import StreamRole
from streams.service import cancelled, until_stopped

log = logging.getLogger(__name__)

TURN_S: Final = 5.0  # for a keeper to end with the batch that it is at
READY = {"items": "items-ready", "profiles": "profiles-ready"}  # step by topic
NAMES = {"items": items_table, "profiles": profiles_table}  # of the tables, by topic


class MaintainedRelease(NamedTuple):
    """A release whose tables are being kept."""

    sync: TableSync
    stop: asyncio.Event
    running: asyncio.Task[None]


class Indexer(StreamRole):
    """Keeps the tables of serving release, candidate and previous one as the topics say."""

    def __init__(
        self,
        settings: Settings,
        index: VectorIndex,
        embedder: TextEmbedder,
        releases: ReleaseStore,
        metrics: IndexerMetrics,
        load: Load | None = None,
        *,
        from_scratch: bool = False,
    ) -> None:
        """`embedder` is the configured one; `load` loads one that a release brings along.

        `from_scratch`: drop the tables first.
        """
        super().__init__("indexer", settings, metrics, settings.metrics.indexer_port)
        self._index, self._metrics, self._store = index, metrics, releases
        self._embedders = Embedders(settings, embedder, releases, load)
        self._releases = ServingRelease()
        self._follower = TopicFollower(settings, "releases", self._on_announcement, metrics)
        self._watch = TopicWatch(settings, (*TOPICS, "releases"))
        self._reading = ConsumptionWatch(settings, self._positions)
        self._news = asyncio.Event()  # something that `_arrange` or `_announce` looks at changed
        self._first: Release | None = None  # to be announced once its tables are whole
        self._kept: dict[str, MaintainedRelease] = {}
        self._serving: str | None = None  # the newest release in force that can be kept
        self._unavailable: dict[str, PalateError] = {}  # those in force that are newer, and why
        self._said = ""  # of them
        self._from_scratch = from_scratch
        self.caught_up = asyncio.Event()  # all records that were there at the start are rows
        self._shared: SyncTools
        self._producer: AIOKafkaProducer

    @property
    def release_id(self) -> str:
        """The release that serves here, or the one that will be the first to serve."""
        return self._serving or (self._first.id if self._first else "")

    async def work(self, stop: asyncio.Event) -> None:
        """Index until `stop`. Raises ReleaseError or VectorIndexError if it cannot."""
        await until_stopped(
            stop,
            self._keep(stop),
            Snapshots(self._settings, self._metrics).keep_fresh(),
            self._follower.failed(),
            self._watch.failed(),
            self._reading.watch(),
            grace_s=2 * TURN_S,
        )

    def not_ready(self) -> str | None:
        """None while a release serves and its topics are read; else what is waited for."""
        kept = self._kept.get(self.release_id)
        if kept is not None and kept.sync.problem:
            return kept.sync.problem
        if self._first is not None or self._releases.id is None:
            return "items are being indexed for the first time"
        if self._serving is None and self._said:
            return self._said
        if kept is None or kept.running.done():
            return f"the tables of release {self.release_id} are not kept"
        standing = kept.sync.standing_still(self._settings.liveness.stalled_s)
        return self._follower.not_ready or standing or self._reading.not_ready

    async def _positions(self) -> Positions:
        """Of the serving release: a candidate may be slow."""
        followed = await self._follower.positions()
        kept = self._kept.get(self.release_id)
        return followed | await kept.sync.positions() if kept else followed

    async def connect(self, closing: AsyncExitStack) -> None:
        """Read all announcements, then see to it that there is a release."""
        closing.push_async_callback(self._watch.stop)
        await self._follower.start()
        closing.push_async_callback(self._follower.stop)
        await self._follower.caught_up()
        in_force = self._releases.in_force
        self._first = await asyncio.to_thread(first_release, self._settings, self._store, in_force)
        self._producer = await start_client(lambda: producer(self._settings))
        closing.push_async_callback(self._producer.stop)
        closing.push_async_callback(self._end_all)
        self._shared = SyncTools(
            settings=self._settings,
            metrics=self._metrics,
            rejects=Rejects(self._settings, self._producer, self._metrics),
            writing=asyncio.Lock(),
            serving=lambda: self.release_id,
            on_news=self._news.set,
        )

    def _on_announcement(self, record: Record) -> None:
        self._releases.on_record(record)
        self._news.set()

    async def _end_all(self) -> None:
        for release_id in list(self._kept):
            await self._end(release_id)

    # -- which releases -------------------------------------------------------------------

    async def _keep(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._news.set())
        try:
            while not stop.is_set():
                self._news.clear()
                await self._settle_ended()
                await self._arrange()
                await self._announce()
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S if self._unavailable else None):
                        await self._news.wait()
        finally:
            stopping.cancel()
        await self._end_all()

    def _wanted(self) -> list[str]:
        """Ids of the releases to keep, the one that serves here first."""
        wanted = dict.fromkeys((self.release_id, *self._releases.wanted))
        return [one for one in wanted if one and one not in self._unavailable]

    async def _arrange(self) -> None:
        """Begin to keep what is wanted and is not kept yet; drop what is wanted no longer."""
        await self._choose_serving()
        for release_id in [one for one in self._kept if one not in self._wanted()]:
            await self._end(release_id)
        for release_id in self._wanted():
            if release_id not in self._kept:
                await self._try_to_begin(release_id)
        self._from_scratch = False  # what is announced from now on has no tables yet
        for release_id in sorted(self._releases.releases - {*self._wanted(), *self._unavailable}):
            await self._drop(release_id)

    async def _choose_serving(self) -> None:
        """The newest release in force that can be kept; what is served now is the last resort."""
        if not self._releases.in_force:
            return
        failed: dict[str, PalateError] = {}
        for release_id in filter(None, dict.fromkeys((*self._releases.in_force, self._serving))):
            try:
                if release_id not in self._kept:
                    await self._begin(release_id)
            except (ReleaseError, EmbedderError) as error:
                failed[release_id] = error
            else:
                self._serving = release_id
                break
        else:
            self._serving = None
        self._note_unavailable(failed)

    def _note_unavailable(self, failed: dict[str, PalateError]) -> None:
        said = [unavailable(one, error, self._serving) for one, error in failed.items()][:1]
        if said and said[0] != self._said:
            log.error("%s", said[0])
        self._unavailable, self._said = failed, "".join(said)
        self._metrics.release_unavailable.set(len(said))
        if failed and self._serving is None and self._from_scratch:
            raise next(iter(failed.values()))  # palate rebuild-index does not wait

    async def _try_to_begin(self, release_id: str) -> None:
        try:
            await self._begin(release_id)
        except PalateError as error:
            await self._give_up(release_id, error)

    async def _begin(self, release_id: str) -> None:
        release = self._store.get(release_id)
        self._check_announced(release)
        embedder = await self._embedders.of(release)
        sync = TableSync(
            self._shared,
            release_id,
            {topic: self._table(topic, release_id, embedder) for topic in TOPICS},
            takes_over=lambda other: self._embedders.same(release_id, other),
        )
        stop = asyncio.Event()
        running = asyncio.create_task(sync.run(stop, from_scratch=self._from_scratch))
        running.add_done_callback(lambda _: self._news.set())
        self._kept[release_id] = MaintainedRelease(sync, stop, running)
        log.info("release %s: its tables are kept", release_id)

    def _check_announced(self, release: Release) -> None:
        """A folder of the same name with other content is another release."""
        said = {step.manifest_sha256 for step in self._releases.steps(release.id)} - {None}
        if release.id == self._releases.candidate and said - {release.manifest_sha256}:
            raise ReleaseError(
                f"release {release.id} was announced with another manifest than its folder has; "
                "publish it under a new id"
            )

    def _table(self, topic: str, release_id: str, embedder: TextEmbedder) -> IndexedTable:
        return IndexedTable(
            NAMES[topic](release_id),
            self._index,
            embedder,
            self._settings.index,
            self._metrics,
            alike=lambda: self._alike(topic, release_id),
        )

    def _alike(self, topic: str, release_id: str) -> Sequence[str]:
        """The other kept tables of a topic whose vectors are as good as this release's own."""
        others = [one for one in list(self._kept) if one != release_id]
        return [NAMES[topic](one) for one in others if self._embedders.same(one, release_id)]

    async def _end(self, release_id: str) -> None:
        kept = self._kept.pop(release_id)
        kept.stop.set()
        await asyncio.wait({kept.running}, timeout=TURN_S)
        await cancelled([kept.running])
        await asyncio.to_thread(kept.sync.end)

    async def _settle_ended(self) -> None:
        """A keeper that has failed: the role ends with it, unless another release serves."""
        for release_id in [one for one, kept in self._kept.items() if kept.running.done()]:
            kept = self._kept.pop(release_id)
            try:
                kept.running.result()
            except PalateError as error:
                await self._give_up(release_id, error)

    async def _give_up(self, release_id: str, error: PalateError) -> None:
        """Say that a release cannot be kept; raises `error` if it is the serving one."""
        if release_id == self.release_id:
            raise error
        log.error("release %s cannot be kept: %s", release_id, error)
        status = "refused" if release_id == self._releases.candidate else "retired"
        await self._say(release_id, status, detail=str(error))

    async def _drop(self, release_id: str) -> None:
        """1. the tables go  2. that is announced; a crash between is made good at the start."""
        for name in NAMES.values():
            await asyncio.to_thread(self._index.drop, name(release_id))
        if not self._releases.has(release_id, "refused"):
            await self._say(release_id, "retired", detail="neither serving, previous nor candidate")

    # -- what is said ---------------------------------------------------------------------

    async def _announce(self) -> None:
        """The first release serves when its tables are whole; of a candidate it is said."""
        candidate = self._releases.candidate
        if candidate in self._kept:
            await self._announce_ready(candidate)
        if self._first is not None and self._is_whole(self._first.id):
            for made in await announce_first(self._producer, self._settings, self._first):
                self._releases.take(made)
            self._serving = self._first.id
            self._first = None
        await self._announce_serving()
        if self._serving and all(self._is_whole(one) for one in self._wanted()):
            self.caught_up.set()

    async def _announce_ready(self, release_id: str) -> None:
        for topic, step in READY.items():  # in this order, whichever table was whole first
            if not self._kept[release_id].sync.has_caught_up(topic):
                return
            if not self._releases.has(release_id, step):
                await self._say(release_id, step)

    async def _announce_serving(self) -> None:
        """That items are whole of a release that was put in force before they were."""
        serving = self._releases.id
        if serving is None or serving not in self._kept:
            return
        items_whole = self._kept[serving].sync.has_caught_up("items")
        if items_whole and not self._releases.has(serving, "items-ready"):
            await self._say(serving, "items-ready")
        if self._releases.has(serving, "retired"):  # compaction would leave that record alone
            await self._say(serving, "serving", previous=self._releases.previous)

    def _is_whole(self, release_id: str) -> bool:
        kept = self._kept.get(release_id)
        return kept is not None and all(kept.sync.has_caught_up(topic) for topic in TOPICS)

    async def _say(self, release_id: str, status: str, **more: str | None) -> None:
        step = await announce(self._producer, self._settings, release_id, status, "indexer", **more)
        self._releases.take(step)  # it is read back later, and changes nothing then
