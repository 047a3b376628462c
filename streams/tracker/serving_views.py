"""The derived views that serving reads: item texts, item vectors, co-occurrence, release.

Texts and the serving release come from their topics, vectors and co-occurrence from what the
indexer writes; all are refreshed in the background and swapped whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from models.errors import PalateError, SnapshotDamaged
from models.ports import VectorIndex
from models.ranking.candidates import search_candidates
from models.ranking.catalogue import Catalogue
from models.ranking.cooccurrence import Cooccurrence, Fingerprint, fingerprint, load_newest_whole
from models.ranking.neighbours import Neighbours, Rows, align
from models.ranking.queries import Query
from models.release.store import items_table
from models.settings import Settings
from streams.item_texts import ItemTexts
from streams.metrics import TrackerMetrics
from streams.releases import ServingRelease

log = logging.getLogger(__name__)


class ServingSnapshot(NamedTuple):
    """Items of one release with the co-occurrence among them; swapped whole."""

    release: str
    catalogue: Catalogue
    neighbours: Neighbours


class ServingViews:
    """Everything that ranking needs beside the users' states.

    The candidate's items are loaded as soon as its table is whole, so that a switch is one look
    at another shelf. Until the release in force is loaded, the one before it serves on, also
    after a restart, and also if the one in force is nowhere.
    """

    def __init__(self, settings: Settings, index: VectorIndex, metrics: TrackerMetrics) -> None:
        self._settings, self._index, self._metrics = settings, index, metrics
        self.texts = ItemTexts(settings.kafka.partitions)
        self.release = ServingRelease()
        self._snapshots: dict[str, ServingSnapshot] = {}  # by release: serving, candidate
        self._last: ServingSnapshot | None = (
            None  # of the release that served when it was refreshed last
        )
        self._versions: dict[str, int] = {}  # of the tables that the shelves were read from
        self._cooccurrence: Cooccurrence | None = None
        self._seen: Fingerprint | None = ("", 0, 0)  # what was current at the last look; none yet
        self._away: str | None = None  # the release in force, while its items are not there
        self.problem: str | None = None  # why the views could not be read at the last look

    @property
    def snapshot(self) -> ServingSnapshot | None:
        """What to rank with: of the serving release, or of the one before until it is loaded."""
        return self._snapshots.get(self.release.id or "", self._last)

    @property
    def not_ready(self) -> str | None:
        """Why there is nothing to rank with; None if there is."""
        if self.snapshot is not None:
            return None
        if self.problem or self._away is None:
            return self.problem or "no release is serving yet"
        return (
            f"the items of release {self._away}, announced as serving, are not in the vector index"
        )

    @property
    def release_of_lists(self) -> str | None:
        """Of which release the lists are now."""
        snapshot = self.snapshot
        return snapshot.release if snapshot is not None else self.release.id

    def candidates(self, snapshot: ServingSnapshot, queries: list[Query]) -> list[Rows] | None:
        """Each user's rows worth scoring, where the catalogue is too large to score whole."""
        table, ranking = items_table(snapshot.release), self._settings.ranking
        return search_candidates(
            self._index, table, snapshot.catalogue, snapshot.neighbours, queries, ranking
        )

    async def keep_fresh(self) -> None:
        """Look for new vectors and co-occurrence for ever, and whenever a release has moved."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
                self.problem = None
            except Exception as error:  # noqa: BLE001 (files may be damaged in any way; see below)
                self._note(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.ranking.refresh_s):
                    await self.release.change()

    def _note(self, error: Exception) -> None:
        """What is derived can be made again: a damaged file of it never ends the tracker."""
        problem = (
            str(error) if isinstance(error, PalateError) else f"{type(error).__name__}: {error}"
        )
        if problem != self.problem:  # said once
            log.warning("derived views are not readable now, the last ones stay: %s", problem)
        self.problem = problem

    def refresh(self) -> None:
        """Take in what is new; blocks on the index."""
        serving, candidate = self._servable(), self._whole_candidate()
        self._refresh_cooccurrence()
        if serving is not None:
            self._last = self._refreshed(serving)
        if candidate is not None:
            self._refreshed(candidate)
        self._snapshots = {
            release: snapshot
            for release, snapshot in self._snapshots.items()
            if release in (serving, candidate, self.release.id)
        }

    def _whole_candidate(self) -> str | None:
        candidate = self.release.candidate
        return candidate if candidate and self.release.has(candidate, "items-ready") else None

    def _servable(self) -> str | None:
        """The newest release in force whose items are there, whole if any are.

        A table may be there and have no `items-ready` (it is being made), or the other way round
        (there are no items); a release that is nowhere has neither.
        """
        in_force = self.release.in_force
        whole = [one for one in in_force if self.release.has(one, "items-ready")]
        there = chain(filter(self._is_there, whole), filter(self._is_there, in_force))
        found = next(there, None) or next((one for one in whole if self._last is None), None)
        self._note_unavailable(next(iter(in_force), None), found)
        return found

    def _is_there(self, release: str) -> bool:
        return self._index.version(items_table(release)) > 0

    def _note_unavailable(self, announced: str | None, found: str | None) -> None:
        serving = found or (self._last.release if self._last else None)
        away = None if announced == serving or announced in self._snapshots else announced
        if away is not None and away != self._away:  # said once
            log.warning(
                "release %s is announced as serving and its items are not in the vector index; "
                "%s. It is taken up when they are; the indexer's log says what keeps them away",
                away,
                f"{serving} serves on" if serving else "no release before it can be served",
            )
        self._away = away
        self._metrics.release_unavailable.set(away is not None)

    def _refreshed(self, release: str) -> ServingSnapshot:
        """The release's shelf as of now."""
        started = time.monotonic()
        before = self._snapshots.get(release)
        catalogue = self._newer(release, before)
        if (
            before
            and catalogue is before.catalogue
            and before.neighbours.id == self._cooccurrence_id
        ):
            return before
        snapshot = ServingSnapshot(release, catalogue, align(self._cooccurrence, catalogue))
        self._snapshots[release] = snapshot
        self._metrics.retrieval_latency.labels(kind="refresh").observe(time.monotonic() - started)
        return snapshot

    def _newer(self, release: str, before: ServingSnapshot | None) -> Catalogue:
        table = items_table(release)
        version = self._index.version(table)
        if before is not None and version == self._versions.get(table):
            return before.catalogue
        catalogue = before.catalogue if before else Catalogue.empty()
        newer = catalogue.updated(self._index.newer_than(table, catalogue.sequence))
        self._versions[table] = version
        self._metrics.table_version.labels(table=table).set(version)
        return newer

    def _refresh_cooccurrence(self) -> None:
        """A damaged snapshot is passed over once: the indexer makes it anew under the same id."""
        current = fingerprint(self._settings.cooccurrence_dir)
        if current == self._seen:
            return
        found = load_newest_whole(self._settings.cooccurrence_dir, self._note_damage)
        self._cooccurrence, self._seen = found or self._cooccurrence, current

    def _note_damage(self, damage: SnapshotDamaged) -> None:
        self._metrics.snapshots_damaged.inc()
        log.warning("%s; the last whole one is used meanwhile", damage)

    @property
    def _cooccurrence_id(self) -> str | None:
        return self._cooccurrence.id if self._cooccurrence else None
