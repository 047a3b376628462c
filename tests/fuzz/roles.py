"""What tracker, profiler, indexer and recorder do with a record, without Kafka, disk and models.

Their own functions, called as they call them, but without the last resort: here a record that
makes one of them raise is what is looked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from prometheus_client import CollectorRegistry

from deploy.commands.dead_letters import as_line
from deploy.promotion import serving_of
from models.errors import ReleaseError
from models.fakes import HashEmbedder, MemoryIndex
from models.ports import VectorRow
from models.profile.assembly import compose
from models.profile.prompts import render
from models.ranking.catalogue import Catalogue
from models.ranking.neighbours import align
from models.ranking.scoring import rank_batch
from models.release.store import FolderReleaseStore, base_release, items_table
from models.schemas import (
    TOPIC_SCHEMAS,
    Interaction,
    Message,
    Profile,
    ProfileEdit,
    ProfileRequest,
    ReleaseAnnouncement,
    to_rfc3339,
)
from models.settings import Settings
from streams.codec import (
    Misrouted,
    Record,
    Rejected,
    Removal,
    decode,
    decode_interaction,
    decode_keyed,
    forwarded_headers,
)
from streams.dead_letter_replay import accepted, as_it_was, parse
from streams.dead_letters import dead_letter
from streams.event_log.columns import INVALID, OK
from streams.indexer.changes import Change, item_change, profile_change
from streams.indexer.tables import IndexedTable
from streams.item_texts import ItemTexts
from streams.metrics import IndexerMetrics, ProfilerMetrics, TrackerMetrics
from streams.partition_clock import PartitionClock
from streams.profiler.backlog import Backlog, Waiting
from streams.profiler.profile_version import ProfileVersion
from streams.profiler.release_loader import ReleaseLoader, Sources
from streams.profiler.serving_runtime import ServingRuntime
from streams.profiler.stored_profiles import StoredProfiles
from streams.recorder.rows import Buffer, RecordClassifier
from streams.tracker.profile_requests import build_request
from streams.tracker.recommendations import order_query
from streams.tracker.reducer import Arrival, apply_edit, apply_interactions, pass_time
from streams.tracker.scheduling import RefreshQueue, recommendation_trigger
from streams.tracker.serving_views import ServingSnapshot, ServingViews
from streams.tracker.state import ProfileRecord, User, encode_profile, load, profile_key, store
from streams.triggers import Due
from tests.fuzz.seeds import NOW
from tests.streams.indexer.arranging import Arranging

USERS: Final = 200  # states held before they are begun anew
ROWS: Final = 400  # of a segment
CHANGES: Final = 64  # of a write of the indexer
SOME: Final = 16  # one in so many records goes the slow ways too: lists, requests, profiles
RELEASE: Final = "base-0"


class Roles:
    """The states of the four roles; `take` gives them one record."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._partitions = settings.kafka.partitions
        self._tolerance = int(settings.windows.future_tolerance_s * 1000)
        self._tracker = _Tracker(settings)
        self._indexer = _Indexer(settings)
        self._recorder = _Recorder(settings)
        self._stored = StoredProfiles(30.0, self._partitions)
        self._backlog = Backlog()
        self._releases: _Releases | None = None  # from the first step on
        self._count = 0

    def take(self, topic: str, record: Record) -> object:
        """What became of it. Raises what a role raises."""
        self._count += 1
        if topic == "dead-letters":
            return _shown(record, self._settings)
        found = self._decoded(topic, record)
        if isinstance(found, Rejected):
            dead_letter(record, found)
        elif isinstance(found, Misrouted):
            forwarded_headers(record.headers)
        else:
            self._apply(found, record)
        self._recorder.take(topic, record)
        return _outcome(found)

    def finish(self) -> None:
        """What is held back is written."""
        self._indexer.write()
        self._recorder.write()
        self._end_releases()

    def _decoded(self, topic: str, record: Record) -> Any:
        if topic == "interactions":
            return decode_interaction(record, self._partitions, self._tolerance)
        return decode_keyed(record, TOPIC_SCHEMAS[topic], self._partitions)

    def _apply(self, found: Message | Removal, record: Record) -> None:
        slowly = self._count % SOME == 0
        if isinstance(found, Message):
            assert decode(found.to_json(), type(found)) == found, "written and read, it differs"
        self._tracker.take(found, record, slowly)
        self._indexer.take(record)
        match found:
            case ProfileRequest():
                self._ask(found, record, slowly)
            case Profile():
                self._stored.on_record(record)
                self._stored.due_debts(time.time() * 1000, range(self._partitions), 1)
        if isinstance(found, ReleaseAnnouncement):
            self._follow(found, slowly)

    def _follow(self, step: ReleaseAnnouncement, slowly: bool) -> None:
        if self._releases is None:
            self._releases = _Releases(self._settings)
        self._releases.take(step, slowly)
        if len(self._releases) > USERS:
            self._end_releases()

    def _end_releases(self) -> None:
        if self._releases is not None:
            self._releases.close()
        self._releases = None

    def _ask(self, request: ProfileRequest, record: Record, slowly: bool) -> None:
        marks = ProfileVersion.of_request(request)
        self._backlog.offer(Waiting(request.user_id, marks, record))
        self._stored.answers(request.user_id, marks)
        if len(self._backlog) > USERS:
            self._backlog.clear()
        if slowly:
            render(request)
            text = "Stable taste: likes cake. Right now: tea."
            for said in (None, text):
                compose(request, said, lambda t: len(t.split()))


class _Tracker:
    def __init__(self, settings: Settings) -> None:
        self._settings, self._table = settings, dict[bytes, bytes]()
        self._users: dict[str, User] = {}
        self._texts = ItemTexts(settings.kafka.partitions)
        self._due = RefreshQueue(settings.trigger, settings.windows)
        self._clock = PartitionClock()
        vectors = HashEmbedder(2).embed(["Red cake", "tea"])
        rows = [VectorRow(i, v, i, 0, {}) for i, v in zip(("cake0", "tea"), vectors, strict=True)]
        catalogue = Catalogue.of(rows)
        self._shelf = ServingSnapshot(RELEASE, catalogue, align(None, catalogue))

    def take(self, found: Message | Removal, record: Record, slowly: bool) -> None:
        match found:
            case Interaction():
                user = self._user(found.user_id)
                arrival = Arrival(found, record.offset, record.timestamp)
                counted: Counter[tuple[str, str]] = Counter()
                spec = self._settings.windows
                passing = pass_time(self._clock, [arrival], self._user, spec)
                self._clock = passing.clock
                self._put(user, apply_interactions(user, passing.arrivals, spec, counted))
            case ProfileEdit():
                user = self._user(found.user_id)
                apply_edit(user, found, record.offset, record.timestamp)
                self._put(user, [])
            case Profile():
                user = self._user(found.user_id)
                user.profile = ProfileRecord.of(found)
                self._table[profile_key(user.user_id)] = encode_profile(user.profile)
                recommendation_trigger(user.head, user.profile, RELEASE)
            case _:
                if record.topic == "items":
                    self._texts.on_record(record)
                return
        wall = NOW + record.offset
        self._due.look_at(0, user, self._clock, wall)
        if slowly:
            self._serve(user, user.now(self._clock, wall))

    def _user(self, user_id: str) -> User:
        if len(self._users) > USERS:
            self._users.clear()
            self._table.clear()
            self._due = RefreshQueue(self._settings.trigger, self._settings.windows)
        return self._users.setdefault(user_id, User(user_id))

    def _put(self, user: User, inserted: list[Any]) -> None:
        for key, value in store(user, inserted):
            if value is None:
                self._table.pop(key, None)
            else:
                self._table[key] = value

    def _serve(self, user: User, now: int) -> None:
        cap = self._settings.windows.history_cap
        read = load(user.user_id, self._table.get, cap)
        assert read.history == user.history, "the state read back is another"
        settings = self._settings
        request = build_request(user, 0, Due(1.0, "first"), now, now, settings, self._texts.text_of)
        request.to_json()
        query = order_query(user, settings, self._texts.matching, self._shelf)
        for items in rank_batch(
            self._shelf.catalogue, self._shelf.neighbours, [query], settings.ranking, None
        ):
            assert all(abs(item.score) < 1e6 for item in items)


class _Indexer:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = IndexerMetrics(CollectorRegistry())
        self._waiting: list[Change] = []

    def take(self, record: Record) -> None:
        partitions, chars = self._settings.kafka.partitions, 600
        if record.topic == "items":
            change = item_change(record, partitions, chars)
        elif record.topic == "profiles":
            change = profile_change(record, partitions, RELEASE.__eq__)
        else:
            return
        assert isinstance(change, Change), "the indexer refuses what the others accept"
        self._waiting.append(change)
        if len(self._waiting) >= CHANGES:
            self.write()

    def write(self) -> None:
        changes, self._waiting = self._waiting, []
        index = MemoryIndex()
        IndexedTable("items@x", index, HashEmbedder(2), self._settings.index, self._metrics).write(
            changes
        )


class _Recorder:
    def __init__(self, settings: Settings) -> None:
        self._judge = RecordClassifier.of(settings)
        self._buffer: Buffer | None = None

    def take(self, topic: str, record: Record) -> None:
        if self._buffer is None:
            self._buffer = Buffer(topic, 0, start=record.offset)
        self._buffer.add(record, self._judge, now=0.0)
        if len(self._buffer) >= ROWS:
            self.write()

    def write(self) -> None:
        if self._buffer is None:
            return
        buffer, self._buffer = self._buffer, None
        for row in buffer.table().select(["status", "reason", "value"]).to_pylist():
            assert row["status"] != INVALID or row["reason"] != "failed", "no row can be made of it"
            if row["status"] == OK:  # what replay does
                again = decode(row["value"], TOPIC_SCHEMAS[buffer.topic])
                assert not isinstance(again, Rejected), "accepted, and refused when replayed"


class _Releases:
    """What the roles serve after a step: base-0, for of the others there is nothing here."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._folder = TemporaryDirectory(prefix="releases-")
        self._store = FolderReleaseStore(Path(self._folder.name))
        self._store.publish(base_release(settings, NOW))
        index = MemoryIndex()
        vector = HashEmbedder(2).embed(["tea"])[0]
        index.upsert(items_table(RELEASE), [VectorRow("tea", vector, "tea", 0, {})])
        self._tracker = ServingViews(settings, index, TrackerMetrics(CollectorRegistry()))
        self._releases, self._indexer = self._tracker.release, Arranging(settings, self._store)
        embedder = HashEmbedder(2)
        loader = ReleaseLoader(settings, None, embedder, Sources(self._store, lambda _: embedder))
        self._profiler = ServingRuntime(
            loader, self._releases, ProfilerMetrics(CollectorRegistry())
        )
        serving = ReleaseAnnouncement(release=RELEASE, status="serving", at=NOW)
        self.take(serving, slowly=True)

    def take(self, step: ReleaseAnnouncement, slowly: bool) -> None:
        self._releases.take(step)
        self._indexer.take(step)
        if slowly:
            self._loop.run_until_complete(self._serve())

    def close(self) -> None:
        self._loop.run_until_complete(self._indexer.close())
        self._loop.close()
        self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._releases.releases)

    async def _serve(self) -> None:
        await self._indexer.turn()
        await self._profiler._take_up()
        self._tracker.refresh()
        serving = (
            *(self._indexer.release_id, self._profiler.now().release),
            self._tracker.release_of_lists,
        )
        assert set(serving) == {RELEASE}, f"{serving} serve"
        with suppress(ReleaseError):
            assert serving_of(self._releases, self._store) == RELEASE


def _shown(record: Any, settings: Settings) -> object:
    """What `palate dead-letters` does with a record of its topic."""
    letter = parse(record, settings.kafka.prefix)
    as_line(letter)
    to_rfc3339(record.timestamp)
    correction = as_it_was(letter)
    if hasattr(correction, "value"):
        return type(accepted(correction, record.timestamp, 0)).__name__
    return correction.detail[:20]


def _outcome(found: object) -> object:
    """What tells one kind of outcome from another."""
    if isinstance(found, Rejected):
        return found.reason, "".join(filter(str.isalpha, found.detail))[:80]
    if isinstance(found, Message):
        return tuple((name, type(value).__name__, not value) for name, value in found)
    return type(found).__name__
