"""The derived views that serving reads: item texts, item vectors, co-occurrence, release.

Texts and the serving release come from their topics, vectors and co-occurrence from what the
indexer writes; all are refreshed in the background and swapped whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NamedTuple

from models.catalogue import Catalogue
from models.cooccurrence import Cooccurrence, current_id, load_current
from models.errors import PalateError
from models.neighbours import Neighbours, Rows, align
from models.ports import VectorIndex
from models.queries import Query
from models.releases import items_table
from models.retrieval import search_candidates
from models.schemas import Item
from models.settings import Settings
from models.text import item_text
from streams.codec import Record, Rejected, decode
from streams.metrics import TrackerMetrics
from streams.serving_release import ServingRelease

log = logging.getLogger(__name__)


class ItemTexts:
    """Short texts of all items, from topic `items`."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def on_record(self, record: Record) -> None:
        """Take in one record of topic `items`; what cannot be read, the indexer reports."""
        item_id = (record.key or b"").decode(errors="replace")
        if record.value is None:
            self._texts.pop(item_id, None)
            return
        item = decode(record.value, Item)
        if not isinstance(item, Rejected) and item.item_id == item_id:
            self._texts[item_id] = item_text(item)

    def text_of(self, item_id: str) -> str:
        """The item's short text; empty while it is unknown."""
        return self._texts.get(item_id, "")

    def matching(self, words: tuple[str, ...]) -> frozenset[str]:
        """Items whose text contains one of the (forbidden) words."""
        if not words:
            return frozenset()
        folded = [word.casefold() for word in words]
        return frozenset(
            item for item, text in self._texts.items() if any(w in text.casefold() for w in folded)
        )

    def __len__(self) -> int:
        return len(self._texts)


class Shelf(NamedTuple):
    """Items of one release with the co-occurrence among them; swapped whole."""

    release: str
    catalogue: Catalogue
    neighbours: Neighbours


class Derived:
    """Everything that ranking needs beside the users' states."""

    def __init__(self, settings: Settings, index: VectorIndex, metrics: TrackerMetrics) -> None:
        self._settings, self._index, self._metrics = settings, index, metrics
        self.texts = ItemTexts()
        self.release = ServingRelease()
        self._shelf: Shelf | None = None
        self._snapshot: Cooccurrence | None = None
        self._table_version = -1

    @property
    def shelf(self) -> Shelf | None:
        """What to rank with; None while the serving release is not loaded."""
        loaded = self._shelf is not None and self._shelf.release == self.release.id
        return self._shelf if loaded else None

    def candidates(self, shelf: Shelf, queries: list[Query]) -> list[Rows] | None:
        """Each user's rows worth scoring, where the catalogue is too large to score whole."""
        table, ranking = items_table(shelf.release), self._settings.ranking
        return search_candidates(
            self._index, table, shelf.catalogue, shelf.neighbours, queries, ranking
        )

    async def keep_fresh(self) -> None:
        """Look for new vectors and co-occurrence for ever."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
            except (PalateError, OSError, RuntimeError, ValueError) as error:
                log.warning("derived views are not readable now, the last ones stay: %s", error)
            await asyncio.sleep(self._settings.ranking.refresh_s)

    def refresh(self) -> None:
        """Take in what is new; blocks on the index."""
        release = self.release.id
        if release is None:
            return
        started = time.monotonic()
        before = self._shelf if self._shelf and self._shelf.release == release else None
        catalogue = self._newer(release, before)
        moved = self._refresh_snapshot()
        if before is None or moved or catalogue is not before.catalogue:
            self._shelf = Shelf(release, catalogue, align(self._snapshot, catalogue))
            self._metrics.retrieval_latency.labels(kind="refresh").observe(
                time.monotonic() - started
            )

    def _newer(self, release: str, before: Shelf | None) -> Catalogue:
        table = items_table(release)
        version = self._index.version(table)
        if before is not None and version == self._table_version:
            return before.catalogue
        catalogue = before.catalogue if before else Catalogue.empty()
        newer = catalogue.updated(self._index.newer_than(table, catalogue.sequence))
        self._table_version = version
        self._metrics.table_version.labels(table=table).set(version)
        return newer

    def _refresh_snapshot(self) -> bool:
        folder = self._settings.cooccurrence_dir
        if current_id(folder) == (self._snapshot.id if self._snapshot else None):
            return False
        self._snapshot = load_current(folder)
        return True
