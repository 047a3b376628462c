"""What only the LanceDB adapter does: the writer's lock, old versions, many rows."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import VectorIndexError, VectorIndexUnavailable
from models.ports import VectorRow
from models.ranking.lance_index import LanceIndex

TABLE = "profiles@base-0"


def rows(count: int, seed: int = 0) -> list[VectorRow]:
    vectors = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [VectorRow(f"r{n:05d}", vectors[n], "some text", 0, {}) for n in range(count)]


def test_a_second_writer_is_refused_and_told_why(tmp_path: Path) -> None:
    first = LanceIndex(str(tmp_path), writer=True)
    with pytest.raises(VectorIndexError, match="another process writes"):
        LanceIndex(str(tmp_path), writer=True)
    first.close()
    LanceIndex(str(tmp_path), writer=True).close()


def test_a_name_that_no_folder_can_have_is_cut_and_told_apart(tmp_path: Path) -> None:
    index = LanceIndex(str(tmp_path), writer=True)
    names = ["items@" + "é" * 255 + end for end in "ab"]
    for name in names:
        index.drop(name)  # unknown
        assert index.version(name) == 0
        index.upsert(name, [VectorRow(name, np.ones(2, np.float32), "", 0, {})])
    assert [index.ids(name) for name in names] == [{name} for name in names]
    index.close()


def test_a_killed_writer_leaves_no_lock_behind(tmp_path: Path) -> None:
    script = (
        "import os, signal; from models.ranking.lance_index import LanceIndex; "
        f"index = LanceIndex({str(tmp_path)!r}, writer=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    LanceIndex(str(tmp_path), writer=True).close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    reader = LanceIndex(str(tmp_path))
    for write in (
        lambda: reader.upsert(TABLE, rows(1)),
        lambda: reader.remove(TABLE, ["r00000"]),
        lambda: reader.optimize(TABLE),
        lambda: reader.drop(TABLE),
    ):
        with pytest.raises(VectorIndexError, match="opened for reading"):
            write()


def test_a_writer_that_starts_again_goes_on_in_sequence(tmp_path: Path) -> None:
    first = LanceIndex(str(tmp_path), writer=True)
    first.upsert(TABLE, rows(3))
    seen = first.newer_than(TABLE, -1)[-1].sequence
    first.close()
    second = LanceIndex(str(tmp_path), writer=True)
    second.upsert(TABLE, rows(1))
    assert [row.id for row in second.newer_than(TABLE, seen)] == ["r00000"]


@pytest.mark.filterwarnings("ignore:optimize")
def test_a_removed_row_leaves_old_versions_too(tmp_path: Path) -> None:
    writer = LanceIndex(str(tmp_path), writer=True, keep_versions_s=0.0)
    secret = VectorRow("user", rows(1)[0].vector, "a very private sentence", 0, {})
    writer.upsert(TABLE, [secret, *rows(2)])
    assert _on_disk(tmp_path, b"very private")
    writer.remove(TABLE, ["user"])
    writer.optimize(TABLE)
    assert not _on_disk(tmp_path, b"very private")


def test_old_tombstones_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LanceIndex(str(tmp_path), writer=True)
    writer.upsert(TABLE, rows(2))
    writer.remove(TABLE, ["r00000"])
    writer.optimize(TABLE)
    assert len(writer.newer_than(TABLE, -1)) == 2
    monkeypatch.setattr("models.ranking.lance_index.TOMBSTONE_S", -1.0)
    writer.optimize(TABLE)
    assert [row.id for row in writer.newer_than(TABLE, -1)] == ["r00001"]


def test_a_large_table_gets_an_index_and_still_finds_new_rows(tmp_path: Path) -> None:
    writer = LanceIndex(str(tmp_path), writer=True, approximate_above=500)
    known = rows(600)
    writer.upsert(TABLE, known)
    writer.optimize(TABLE)
    fresh = VectorRow("fresh", rows(1, seed=7)[0].vector, "", 0, {})
    writer.upsert(TABLE, [fresh])
    (found,) = writer.search(TABLE, fresh.vector[None], 3)
    assert found[0] == ("fresh", pytest.approx(1.0, abs=1e-5))


def _on_disk(folder: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in folder.rglob("*") if path.is_file())


# -- damage, and a machine that refuses --------------------------------------------------------


def damage(folder: Path, files: str, left: int) -> None:
    """Cut the files down to this many bytes."""
    found = [path for path in folder.rglob(files) if path.is_file()]
    assert found
    for path in found:
        with path.open("r+b") as file:
            file.truncate(left)


@pytest.mark.parametrize(
    ("files", "left"), [("data/*.lance", 100), ("data/*.lance", 0), ("_versions/*.manifest", 10)]
)
def test_a_damaged_table_is_named_with_its_place_and_what_to_do(
    tmp_path: Path, files: str, left: int
) -> None:
    index = LanceIndex(str(tmp_path), writer=True)
    index.upsert("items@r", [VectorRow("a", np.ones(4, np.float32), "lamp", 0, {})])
    index.verify("items@r")
    damage(tmp_path, files, left)
    reader = LanceIndex(str(tmp_path))
    for read in (
        lambda: index.verify("items@r"),
        lambda: reader.newer_than("items@r", -1),
        lambda: reader.get("items@r", ["a"]),
    ):
        with pytest.raises(VectorIndexError, match=r"items@r.*items\.r\.lance.*is damaged") as said:
            read()
        assert not isinstance(said.value, VectorIndexUnavailable)
        assert ".rs:" not in str(said.value)
    index.drop("items@r")
    index.upsert("items@r", [VectorRow("b", np.ones(4, np.float32), "mug", 0, {})])
    assert index.ids("items@r") == {"b"}


def test_a_full_disk_is_no_damage_and_says_what_to_do(tmp_path: Path) -> None:
    index = LanceIndex(str(tmp_path))
    full = RuntimeError(
        "lance error: LanceError(IO): No space left on device (os error 28), /x.rs:1:2"
    )
    said = index.explained("items@r", full)
    assert isinstance(said, VectorIndexUnavailable)
    assert str(said).endswith("No space left on device (os error 28); make room on that disk")


def test_a_removed_row_leaves_the_disk_with_the_old_versions(tmp_path: Path) -> None:
    index = LanceIndex(str(tmp_path), writer=True, keep_versions_s=0.0)
    secret, others = rows(1)[0], rows(50, seed=1)[1:]
    index.upsert(TABLE, [replace(secret, text="a secret taste"), *others])
    assert holding(tmp_path, b"a secret taste")
    index.remove(TABLE, [secret.id])
    index.optimize(TABLE)
    assert holding(tmp_path, b"a secret taste") == []
    assert holding(tmp_path, secret.vector.tobytes()) == []
    assert index.ids(TABLE) == {row.id for row in others}


def holding(folder: Path, content: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and content in path.read_bytes()]
