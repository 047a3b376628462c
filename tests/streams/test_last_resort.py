"""A record with which a role fails is a dead letter, alone; what no record caused ends the role."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError
from prometheus_client import CollectorRegistry

from models.errors import EmbedderError, TopicError, VectorIndexError
from models.fakes import HashEmbedder, MemoryIndex
from models.ports import Vectors
from models.schemas import Item, ProfileEdit
from models.settings import Settings, load_settings
from streams.codec import partition_for
from streams.indexer.rejects import Rejects
from streams.indexer.table_sync import SyncTools, TableSync
from streams.indexer.tables import IndexedTable
from streams.last_resort import attempted, failure
from streams.metrics import IndexerMetrics, ProfilerMetrics
from streams.profiler import worker as answering_module
from streams.profiler.stored_profiles import StoredProfiles
from streams.profiler.worker import ProfileWorker
from streams.recorder import rows as rows_module
from streams.recorder.rows import Buffer, RecordClassifier
from streams.tracker import intake as tracker_module
from streams.tracker.state import HEAD
from streams.tracker.users import Users
from tests.fuzz.seeds import NOW, seeds
from tests.streams.logged import ARecord
from tests.streams.tracker.arranging import Letters, event, rows, tracker

SYSTEMIC = [
    KafkaConnectionError("the broker is away"),
    OSError(28, "No space left on device"),
    MemoryError(),
    TopicError("the topic was made anew"),
    VectorIndexError("locked"),
    Exception("IO error: No space left on device"),  # as RocksDB says it
]
OWN = [ValueError("x"), ZeroDivisionError(), RecursionError(), KeyError("k"), RuntimeError("r")]


@pytest.mark.parametrize("error", SYSTEMIC, ids=repr)
def test_what_is_no_records_fault_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        failure(error)


@pytest.mark.parametrize("error", [*OWN, MessageSizeTooLargeError("12 MB")], ids=repr)
def test_anything_else_marks_the_record(error: Exception) -> None:
    assert failure(error).reason == "failed"


def test_the_record_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    record = ARecord("items", 3, 17, b"{}")
    assert attempted(record, lambda: 1 / 0).reason == "failed"  # type: ignore[union-attr]
    assert "items/3@17" in caplog.text
    assert "ZeroDivisionError" in caplog.text


# -- the roles ---------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path) -> Settings:  # type: ignore[no-untyped-def]
    return load_settings(data_dir=tmp_path, kafka={"partitions": 1, "bootstrap": "127.0.0.1:1"})


def count(registry: CollectorRegistry, topic: str) -> float | None:
    return registry.get_sample_value("palate_records_failed_total", {"topic": topic})


def test_the_tracker_applies_all_events_but_the_one_it_fails_with(settings, monkeypatch):
    registry = CollectorRegistry()
    role, letters = tracker(settings, registry)
    true = tracker_module.apply_interactions

    def failing(user, arrivals, *rest):
        inserted = true(user, arrivals, *rest)  # the state is changed before it fails
        if any(arrival.interaction.event_id == "e1" for arrival in arrivals):
            raise ZeroDivisionError
        return inserted

    monkeypatch.setattr(tracker_module, "apply_interactions", failing)
    sent = [event(0, "ann"), event(1, "ann"), event(2, "bob"), event(3, "ann")]
    asyncio.run(role.intake.on_interactions(rows("interactions", *sent)))
    assert letters.failed() == [(0, 1)]
    assert count(registry, "interactions") == 1
    users = role.working_set.users
    histories = {u: [e.event_id for e in users.get(0, u).history] for u in ("ann", "bob")}
    assert histories == {"ann": ["e0", "e3"], "bob": ["e2"]}
    read_again = Users(role.partitions, settings.windows.history_cap, role.metrics)
    assert read_again.get(0, "ann").history == users.get(0, "ann").history
    assert read_again.get(0, "ann").head == users.get(0, "ann").head
    applied = {"type": "purchase", "outcome": "applied"}
    assert registry.get_sample_value("palate_events_total", applied) == 3


def test_the_tracker_takes_no_event_for_poison_when_the_disk_is_full(settings, monkeypatch):
    role, letters = tracker(settings, CollectorRegistry())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(role.partitions, "write", full)
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(role.intake.on_interactions(rows("interactions", event(0, "ann"))))
    assert letters.sent == []


def test_the_tracker_goes_on_behind_an_edit_and_a_profile_it_fails_with(settings, monkeypatch):
    registry = CollectorRegistry()
    role, letters = tracker(settings, registry)
    edit = {"user_id": "ann", "action": "pin", "timestamp": NOW}
    bad = ProfileEdit.model_validate(edit | {"edit_id": "bad", "text": "Bad"})
    good = ProfileEdit.model_validate(edit | {"edit_id": "good", "text": "Good"})
    true = tracker_module.apply_edit

    def failing(user, one, *when):
        done = true(user, one, *when)
        if one.edit_id == "bad":
            raise RuntimeError("half way")
        return done

    monkeypatch.setattr(tracker_module, "apply_edit", failing)
    asyncio.run(role.intake.on_edits(rows("profile-edits", bad, good)))
    assert letters.failed() == [(0, 0)]
    assert role.working_set.users.get(0, "ann").head.pinned == ("Good",)
    assert role.working_set.next_offsets[0][1] == 2
    profile = seeds("profiles")[0]
    monkeypatch.setattr(tracker_module.ProfileRecord, "of", lambda _: 1 / 0)
    asyncio.run(role.intake.on_profiles(rows("profiles", profile)))
    assert count(registry, "profiles") == 1
    assert [key for _, key in role.partitions.records if key.startswith(HEAD)] == [HEAD + b"ann"]


def test_the_recorder_makes_a_row_of_a_record_that_it_fails_with(monkeypatch):
    buffer = Buffer("interactions", 0, start=0)
    judge = RecordClassifier(partitions=1, future_tolerance_ms=600_000)
    true = rows_module.decode_interaction

    def failing(record, *rest):
        if record.offset == 1:
            raise OverflowError("too large")
        return true(record, *rest)

    monkeypatch.setattr(rows_module, "decode_interaction", failing)
    for offset in range(3):
        one = event(offset, "ann")
        buffer.add(ARecord("interactions", 0, offset, one.to_json(), b"ann"), judge, now=0.0)
    found = buffer.table().select(["offset", "status", "reason", "user_id"]).to_pylist()
    assert [(row["status"], row["reason"]) for row in found] == [
        *(("ok", None), ("invalid", "failed"), ("ok", None)),
    ]
    assert found[1]["user_id"] is None
    assert (buffer.failed(3), buffer.failed(1)) == (1, 0)


def test_a_message_that_fits_into_no_column_is_one_row_not_the_segments_end():
    buffer = Buffer("items", 0, start=0)
    judge = RecordClassifier(partitions=1, future_tolerance_ms=0)
    for offset in range(3):
        item = Item(item_id=f"i{offset}", title="t", price=1.0)
        key = item.item_id.encode()
        buffer.add(ARecord("items", 0, offset, item.to_json(), key), judge, now=0.0)
    unfit = buffer._verdicts[1].message.model_copy(update={"price": "much"})
    buffer._verdicts[1] = buffer._verdicts[1]._replace(message=unfit)
    found = buffer.table().select(["status", "reason", "item_id"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        *(("ok", None, "i0"), ("invalid", "failed", None), ("ok", None, "i2")),
    ]
    assert buffer.statuses(3) == {"ok": 2, "invalid": 1}


class Embedder(HashEmbedder):
    """Fails with one text, or with all."""

    def __init__(self, bad: str) -> None:
        super().__init__(4)
        self.bad = bad

    def embed(self, texts: Sequence[str]) -> Vectors:
        if any(self.bad in text for text in texts):
            raise RuntimeError("cannot embed this")
        return super().embed(texts)


def keeper(settings: Settings, bad: str, index: MemoryIndex, letters: Letters) -> TableSync:
    metrics = IndexerMetrics(CollectorRegistry())
    shared = SyncTools(
        settings=settings,
        metrics=metrics,
        rejects=Rejects(settings, letters, metrics),  # type: ignore[arg-type]
        writing=asyncio.Lock(),
        serving=lambda: "r",
        on_news=lambda: None,
    )
    table = IndexedTable("items@r", index, Embedder(bad), settings.index, metrics)
    return TableSync(shared, "r", {"items": table}, takes_over=lambda _: False)


def item_records(settings: Settings, *titles: str) -> list[ARecord]:
    topic = settings.topic("items")
    return [
        ARecord(topic, 0, n, Item(item_id=title, title=title).to_json(), title.encode())
        for n, title in enumerate(titles)
    ]


def test_the_indexer_writes_all_items_but_the_one_it_fails_with(settings):
    index, letters = MemoryIndex(), Letters()

    async def write() -> None:
        await keeper(settings, "bad", index, letters)._write(
            "items", item_records(settings, "one", "bad", "two"), asyncio.Event()
        )

    asyncio.run(write())
    assert letters.failed() == [(0, 1)]
    assert index.ids("items@r") == {"one", "two"}


def test_the_indexer_takes_no_item_for_poison_when_nothing_can_be_embedded(settings):
    letters = Letters()

    async def write(bad: str, index: MemoryIndex) -> None:
        items = item_records(settings, "one")
        await keeper(settings, bad, index, letters)._write("items", items, asyncio.Event())

    with pytest.raises(EmbedderError):
        asyncio.run(write("", MemoryIndex()))
    full = MemoryIndex()
    full.upsert = lambda *_: (_ for _ in ()).throw(RuntimeError("no space"))  # type: ignore[method-assign]
    with pytest.raises(VectorIndexError, match="no space"):
        asyncio.run(write("bad", full))
    assert letters.sent == []


def answering(settings: Settings, registry: CollectorRegistry) -> tuple[ProfileWorker, Letters]:
    letters = Letters()
    made = ProfileWorker(
        settings,
        SimpleNamespace(engine=None),  # type: ignore[arg-type]
        StoredProfiles(30.0, 1),
        SimpleNamespace(),  # type: ignore[arg-type]
        letters,  # type: ignore[arg-type]
        ProfilerMetrics(registry),
        SimpleNamespace(),  # type: ignore[arg-type]
    )
    return made, letters


def test_the_profiler_takes_in_all_requests_but_the_one_it_fails_with(settings, monkeypatch):
    registry = CollectorRegistry()
    role, letters = answering(settings, registry)
    request = seeds("profile-requests")[0]
    true = answering_module.ProfileVersion.of_request

    def failing(one):
        return 1 / 0 if one.user_id == "bad" else true(one)

    monkeypatch.setattr(answering_module.ProfileVersion, "of_request", failing)

    async def take() -> None:
        for offset, user in enumerate(("bad", "ann")):
            one = request.model_copy(update={"user_id": user})
            topic = settings.topic("profile-requests")
            await role.take_in(ARecord(topic, 0, offset, one.to_json(), user.encode()))  # type: ignore[arg-type]

    asyncio.run(take())
    assert letters.failed() == [(0, 0)]
    assert role.waiting == 1
    assert count(registry, "profile-requests") == 1


def test_the_profiler_ends_with_what_no_request_is_to_blame_for(settings, monkeypatch):
    role, letters = answering(settings, CollectorRegistry())
    request = seeds("profile-requests")[0]
    record = ARecord("profile-requests", 0, 0, request.to_json(), b"ann0")

    async def answer(error: Exception) -> BaseException | None:
        async def written(*_: object) -> None:
            raise error

        monkeypatch.setattr(role, "written", written)
        await role.take_in(record)  # type: ignore[arg-type]
        role.dispatch()
        await role.drain(5.0)
        return role._failure

    assert isinstance(asyncio.run(answer(EmbedderError("no model"))), EmbedderError)
    assert letters.sent == []
    assert partition_for(b"ann0", 1) == 0
