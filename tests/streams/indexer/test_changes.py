from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.errors import VectorIndexError
from models.fakes import HashEmbedder, MemoryIndex
from models.ports import VectorRow, Vectors
from models.schemas import Item, Profile, Sections
from models.settings import IndexSettings
from streams.codec import Headers, Rejected
from streams.indexer.changes import Change, item_change, newest, plan, profile_change
from streams.indexer.tables import IndexedTable
from streams.metrics import IndexerMetrics

NOW = 1_300_000_000_000
BASE = "base-0".__eq__


@dataclass(frozen=True)
class Row:
    key: bytes | None
    value: bytes | None
    topic: str = "items"
    partition: int = 0
    offset: int = 0
    timestamp: int = NOW
    headers: Headers = ()


def item(name: str = "a", **fields: object) -> Row:
    made = Item(item_id=name, title="Red lamp", **fields)  # type: ignore[arg-type]
    return Row(name.encode(), made.to_json())


def profile(applied: int = 5, *, fallback: bool = False, vector_release: str = "base-0") -> Row:
    made = Profile(
        profile_id=f"p{applied}",
        user_id="ann",
        version=1,
        as_of=NOW,
        sections=Sections(),
        text="Likes lamps.",
        release="base-0",
        model="m",
        fallback=fallback,
        request_id="r",
        rule="first",
        prompt_version="1",
        prompt_hash="h",
        windows_hash="w",
        applied_offset=applied,
        vector=(0.6, 0.8),
        vector_release=vector_release,
        created_at=NOW,
    )
    return Row(b"ann", made.to_json(), "profiles")


def test_an_item_becomes_its_text_for_the_embedder_and_its_label_for_people() -> None:
    change = item_change(item(brand="Lux", available=False), 1, 600)
    assert isinstance(change, Change)
    assert change.text == "Red lamp. Lux"
    assert change.attributes == {"label": "Red lamp, Lux", "available": False}


@pytest.mark.parametrize(
    "make", [lambda row: item_change(row, 1, 600), lambda row: profile_change(row, 1, BASE)]
)
def test_a_null_value_removes(make: object) -> None:
    assert make(Row(b"a", None)) == Change("a", None)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Row(b"a", b"not json"), "not_json"),
        (Row(b"a", b'{"item_id": "a"}'), "invalid"),
        (Row(b"other", item().value), "wrong_key"),
        (Row(None, item().value), "wrong_key"),
        (Row(b"\xff", item().value), "wrong_key"),
        (Row(b"\xff", None), "wrong_key"),
        (Row(b"a" * 13_000_000, None), "wrong_key"),
        (Row(b"a", b'{"item_id": "a", "title": "' + b"x" * 2_000_000 + b'"}'), "too_large"),
    ],
)
def test_what_is_no_item_says_why(row: Row, reason: str) -> None:
    change = item_change(row, 1, 600)
    assert isinstance(change, Rejected)
    assert change.reason == reason


def test_the_vector_of_a_profile_is_taken_over_only_within_its_release() -> None:
    own, other = profile_change(profile(), 1, BASE), profile_change(profile(), 1, "next".__eq__)
    assert isinstance(own, Change)
    assert isinstance(other, Change)
    assert own.vector is not None
    assert other.vector is None


def test_of_a_batch_the_newest_change_of_each_id_stays() -> None:
    first, second, removal = Change("a", "1"), Change("a", "2"), Change("b", None)
    assert newest([first, Change("b", "x"), second, removal]) == [second, removal]


def test_an_older_profile_does_not_replace_a_newer_one() -> None:
    newer, older = profile_change(profile(9), 1, BASE), profile_change(profile(5), 1, BASE)
    stand_in = profile_change(profile(9, fallback=True), 1, BASE)
    assert isinstance(newer, Change)
    assert isinstance(older, Change)
    assert isinstance(stand_in, Change)
    assert newest([newer, older, stand_in]) == [newer]
    known = {"ann": VectorRow("ann", np.ones(2, np.float32), newer.text or "", 1, newer.attributes)}
    for late in (older, stand_in, newer):
        assert plan([late], known).rows == []
    replaced = {"ann": VectorRow("ann", np.ones(2, np.float32), "", 1, stand_in.attributes)}
    assert [row.id for row in plan([newer], replaced).rows] == ["ann"]


class CountingEmbedder(HashEmbedder):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def embed(self, texts: list[str]) -> Vectors:  # type: ignore[override]
        self.texts += texts
        return super().embed(texts)


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def index() -> MemoryIndex:
    return MemoryIndex()


@pytest.fixture
def table(index: MemoryIndex, embedder: CountingEmbedder) -> IndexedTable:
    metrics = IndexerMetrics(CollectorRegistry())
    return IndexedTable("items@r", index, embedder, IndexSettings(optimize_every=2), metrics)


def test_a_text_that_is_known_is_not_embedded_again(
    table: IndexedTable, index: MemoryIndex, embedder: CountingEmbedder
) -> None:
    table.write([Change("a", "lamp", {"available": True})])
    table.write([Change("a", "lamp", {"available": False})])
    assert embedder.texts == ["lamp"]
    assert index.get("items@r", ["a"])["a"].attributes == {"available": False}


def test_a_vector_that_only_claims_to_be_of_the_embedder_is_made_anew(
    table: IndexedTable, index: MemoryIndex, embedder: CountingEmbedder
) -> None:
    sound = np.full(embedder.dimension, 0.125, np.float32)
    false = {"short": sound[:2], "nan": sound * np.nan}
    table.write([Change(name, name, vector=vector) for name, vector in false.items()])
    table.write([Change("sound", "sound", vector=sound)])
    assert sorted(embedder.texts) == ["nan", "short"]
    rows = index.get("items@r", ["short", "nan", "sound"])
    assert all(np.isclose(row.vector @ row.vector, 1.0, atol=1e-6) for row in rows.values())


def test_a_vector_is_copied_from_a_table_of_the_same_embedder_for_the_same_text(
    index: MemoryIndex, embedder: CountingEmbedder, table: IndexedTable
) -> None:
    table.write([Change("a", "lamp"), Change("b", "mug")])
    metrics = IndexerMetrics(CollectorRegistry())
    beside = IndexedTable(
        "items@s", index, embedder, IndexSettings(), metrics, alike=lambda: ["items@r", "items@q"]
    )
    beside.write([Change("a", "lamp"), Change("b", "jug"), Change("c", "tin")])
    assert embedder.texts == ["lamp", "mug", "jug", "tin"]
    assert index.get("items@s", ["a"])["a"].vector is not None
    assert index.ids("items@s") == {"a", "b", "c"}


def test_a_table_that_is_gone_is_not_begun_anew_in_silence(
    table: IndexedTable, index: MemoryIndex, embedder: CountingEmbedder
) -> None:
    """What was written before would be missing, for its offsets are committed."""
    table.write([Change("a", "lamp")])
    index.drop("items@r")
    with pytest.raises(VectorIndexError, match=r"items@r.*is gone"):
        table.write([Change("b", "mug")])
    with pytest.raises(VectorIndexError, match=r"items@r.*is gone"):
        table.verify()
    assert index.ids("items@r") == set()


def test_a_redelivered_change_writes_nothing(table: IndexedTable, index: MemoryIndex) -> None:
    table.write([Change("a", "lamp"), Change("b", "mug")])
    table.write([Change("b", None)])
    version = index.version("items@r")
    table.write([Change("a", "lamp"), Change("b", None)])
    assert index.version("items@r") == version


def test_a_table_is_optimized_after_so_many_writes(table: IndexedTable, index: MemoryIndex) -> None:
    table.write([Change("a", "lamp"), Change("b", "mug")])
    assert not table.due()
    table.write([Change("b", None)])
    assert table.due()
    table.optimize()
    assert not table.due()
    assert len(index.newer_than("items@r", -1)) == 1  # the tombstone is gone
