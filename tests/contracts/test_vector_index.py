"""One suite for the port VectorIndex: LanceDB and the shipped fake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.errors import VectorIndexError
from models.fakes import MemoryIndex
from models.ports import VectorIndex, VectorRow, Vectors
from models.ranking.lance_index import LanceIndex

TABLE = "items@base-0"
Pair = tuple[VectorIndex, VectorIndex]  # (the writer's view, a reader's view)


@pytest.fixture(params=["lancedb", "memory"])
def views(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    if request.param == "memory":
        index = MemoryIndex()
        return index, index
    return LanceIndex(str(tmp_path), writer=True), LanceIndex(str(tmp_path))


def row(
    name: str, vector: list[float] | None = None, text: str = "", **attributes: object
) -> VectorRow:
    made = np.array(vector or [1.0, 0.0, 0.0, 0.0], np.float32)
    return VectorRow(name, made, text or f"text of {name}", 0, attributes)


def axes(count: int) -> Vectors:
    return np.eye(4, dtype=np.float32)[:count]


def test_a_table_that_is_not_there_is_empty(views: Pair) -> None:
    _, reader = views
    assert reader.ids(TABLE) == set()
    assert reader.newer_than(TABLE, -1) == []
    assert reader.version(TABLE) == 0
    assert reader.search(TABLE, axes(2), 3) == [[], []]


def test_a_reader_sees_what_the_writer_wrote(views: Pair) -> None:
    writer, reader = views
    writer.upsert(TABLE, [row("a", [0, 1, 0, 0], "lamp", available=False, label="Lamp")])
    (found,) = reader.newer_than(TABLE, -1)
    assert (found.id, found.text) == ("a", "lamp")
    assert dict(found.attributes) == {"available": False, "label": "Lamp"}
    np.testing.assert_array_equal(found.vector, np.float32([0, 1, 0, 0]))


def test_rows_are_got_by_id_whatever_the_id_is(views: Pair) -> None:
    writer, reader = views
    names = ["it's", 'a "b"', "x; DROP TABLE", "ünï/✓", "%", "\\"]
    writer.upsert(TABLE, [row(name) for name in names])
    writer.remove(TABLE, ["%"])
    assert set(reader.get(TABLE, [*names, "unknown"])) == set(names) - {"%"}
    assert reader.get(TABLE, []) == {}
    assert reader.get("no table", ["a"]) == {}


def test_an_upsert_replaces_by_id(views: Pair) -> None:
    writer, reader = views
    writer.upsert(TABLE, [row("a", text="old"), row("b")])
    writer.upsert(TABLE, [row("a", text="new")])
    assert {found.id: found.text for found in reader.newer_than(TABLE, -1)} == {
        "a": "new",
        "b": "text of b",
    }


def test_of_an_id_twice_in_one_write_the_last_stays(views: Pair) -> None:
    writer, reader = views
    writer.upsert(TABLE, [row("a", text="first"), row("a", text="last")])
    assert [found.text for found in reader.newer_than(TABLE, -1)] == ["last"]


def test_newer_than_gives_only_later_writes_in_order(views: Pair) -> None:
    writer, reader = views
    writer.upsert(TABLE, [row("b"), row("a")])
    seen = reader.newer_than(TABLE, -1)[-1].sequence
    assert reader.newer_than(TABLE, seen) == []
    writer.upsert(TABLE, [row("c")])
    writer.upsert(TABLE, [row("a", text="again")])
    assert [found.id for found in reader.newer_than(TABLE, seen)] == ["c", "a"]


def test_readers_learn_of_a_removal(views: Pair) -> None:
    writer, reader = views
    writer.upsert(TABLE, [row("a"), row("b")])
    seen = reader.newer_than(TABLE, -1)[-1].sequence
    writer.remove(TABLE, ["a", "never there"])
    (tombstone,) = reader.newer_than(TABLE, seen)
    assert tombstone.id == "a"
    assert tombstone.attributes == {"removed": True}
    assert not tombstone.vector.any()
    assert tombstone.text == ""
    assert reader.ids(TABLE) == {"b"}


def test_a_removed_row_can_come_back(views: Pair) -> None:
    writer, reader = views
    writer.upsert(TABLE, [row("a")])
    writer.remove(TABLE, ["a"])
    writer.upsert(TABLE, [row("a", text="back")])
    assert reader.ids(TABLE) == {"a"}
    assert reader.search(TABLE, axes(1), 1) == [[("a", 1.0)]]


def test_search_gives_the_nearest_best_first_and_ties_by_id(views: Pair) -> None:
    writer, reader = views
    writer.upsert(
        TABLE,
        [row("far", [0, 0, 0, 1]), row("d"), row("b"), row("c"), row("half", [0.6, 0.8, 0, 0])],
    )
    first, second = reader.search(TABLE, axes(2), 2)
    assert first == [("b", 1.0), ("c", 1.0)]
    assert second[0] == ("half", pytest.approx(0.8, abs=1e-6))


def test_removed_rows_are_not_found(views: Pair) -> None:
    writer, reader = views
    writer.upsert(TABLE, [row("a"), row("b")])
    writer.remove(TABLE, ["a"])
    assert reader.search(TABLE, axes(1), 5) == [[("b", 1.0)]]


def test_the_version_grows_with_every_change(views: Pair) -> None:
    writer, reader = views
    versions = [reader.version(TABLE)]
    for change in (
        lambda: writer.upsert(TABLE, [row("a")]),
        lambda: writer.upsert(TABLE, [row("a")]),
        lambda: writer.remove(TABLE, ["a"]),
    ):
        change()
        versions.append(reader.version(TABLE))
    assert versions == sorted(set(versions))


def test_vectors_of_another_dimension_are_refused(views: Pair) -> None:
    writer, _ = views
    writer.upsert(TABLE, [row("a")])
    with pytest.raises(VectorIndexError):
        writer.upsert(TABLE, [row("b", [1.0, 0.0])])


def test_optimizing_keeps_the_rows(views: Pair) -> None:
    writer, reader = views
    for name in "abc":
        writer.upsert(TABLE, [row(name)])
    writer.optimize(TABLE)
    writer.optimize("no such table")
    assert reader.ids(TABLE) == {"a", "b", "c"}


def test_a_dropped_table_can_be_made_again_and_goes_on_in_sequence(views: Pair) -> None:
    writer, reader = views
    writer.upsert(TABLE, [row("a")])
    seen = reader.newer_than(TABLE, -1)[-1].sequence
    writer.drop(TABLE)
    assert reader.ids(TABLE) == set()
    writer.upsert(TABLE, [row("b", [1.0, 0.0])])
    assert [found.id for found in reader.newer_than(TABLE, seen)] == ["b"]


def test_tables_do_not_mix(views: Pair) -> None:
    writer, reader = views
    writer.upsert("items@a.b", [row("x")])
    writer.upsert("items@a_b", [row("y")])
    assert reader.ids("items@a.b") == {"x"}
    assert reader.ids("items@a_b") == {"y"}
