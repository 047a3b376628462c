"""State on this machine: a beginning of the changelog, or nothing."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import StackError, StoreDamaged
from streams.tracker import local_store
from streams.tracker.local_store import LocalStore


def filled(folder: Path, topic_id: str = "t") -> None:
    store = LocalStore.open(folder, topic_id)
    store.apply({b"ua": b"1", b"ub": b"2", b"pa": b"3"}, next_offset=7)
    store.close()


def reopened(folder: Path, topic_id: str = "t") -> tuple[int, bytes | None]:
    store = LocalStore.open(folder, topic_id)
    try:
        return store.position.next_offset, store.get(b"ua")
    finally:
        store.close()


def test_content_and_position_come_back_together(tmp_path: Path) -> None:
    filled(tmp_path / "0")
    assert reopened(tmp_path / "0") == (7, b"1")


def test_a_value_of_none_deletes(tmp_path: Path) -> None:
    filled(tmp_path / "0")
    store = LocalStore.open(tmp_path / "0", "t")
    store.apply({b"ua": None}, next_offset=8)
    store.close()
    assert reopened(tmp_path / "0") == (8, None)


def test_a_scan_is_of_one_prefix_in_order_and_begins_behind_a_key(tmp_path: Path) -> None:
    filled(tmp_path / "0")
    store = LocalStore.open(tmp_path / "0", "t")
    assert list(store.scan(b"u")) == [(b"ua", b"1"), (b"ub", b"2")]
    assert list(store.scan(b"u", b"a")) == [(b"ub", b"2")]
    store.close()


def empty_current(folder: Path) -> None:
    (folder / "CURRENT").write_bytes(b"")


def no_current(folder: Path) -> None:
    (folder / "CURRENT").unlink()


def no_manifest(folder: Path) -> None:
    next(folder.glob("MANIFEST-*")).unlink()


def cut_manifest(folder: Path) -> None:
    manifest = next(folder.glob("MANIFEST-*"))
    manifest.write_bytes(manifest.read_bytes()[:20])


def no_tables(folder: Path) -> None:
    for table in [*folder.glob("*.sst"), *folder.glob("*.log")]:
        table.unlink()


def flipped_tables(folder: Path) -> None:
    for table in [*folder.glob("*.sst"), *folder.glob("*.log")]:
        table.write_bytes(bytes(byte ^ 0x55 for byte in table.read_bytes()))


@pytest.mark.parametrize(
    "damage", [empty_current, no_current, no_manifest, cut_manifest, no_tables, flipped_tables]
)
def test_what_is_damaged_is_never_half_of_the_state(tmp_path: Path, damage) -> None:
    filled(tmp_path / "0")
    damage(tmp_path / "0")
    try:
        found = reopened(tmp_path / "0")
    except StoreDamaged:  # seen at the first read; the owner removes the folder then
        local_store.remove(tmp_path / "0")
        found = reopened(tmp_path / "0")
    assert found in [(0, None), (7, b"1")]


def test_damage_is_said(tmp_path: Path, caplog) -> None:
    filled(tmp_path / "0")
    empty_current(tmp_path / "0")
    with caplog.at_level(logging.WARNING):
        assert reopened(tmp_path / "0") == (0, None)
    assert "damaged" in caplog.text
    assert str(tmp_path / "0") in caplog.text


def test_the_state_of_another_changelog_topic_is_not_this_ones(tmp_path: Path) -> None:
    filled(tmp_path / "0", "made before")
    assert reopened(tmp_path / "0", "made anew") == (0, None)


def test_a_folder_that_was_away_for_long_may_keep_what_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "0")
    monkeypatch.setattr(local_store, "TRUSTED_FOR_S", -1.0)
    assert reopened(tmp_path / "0") == (0, None)


HOLD = """
import sys
from pathlib import Path
from streams.tracker.local_store import LocalStore
store = LocalStore.open(Path(sys.argv[1]), "t")
print("open", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_is_refused_and_not_removed(tmp_path: Path) -> None:
    filled(tmp_path / "0")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "0")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StackError, match="open in another process"):
            LocalStore.open(tmp_path / "0", "t")
        other.communicate()
    assert reopened(tmp_path / "0") == (7, b"1")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot keep the tracker's state in"):
        LocalStore.open(tmp_path / "file" / "0", "t")
