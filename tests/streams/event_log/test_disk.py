from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from models.errors import EventLogError
from streams.event_log.disk import exclusive, replacing


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full: make room"),
        (errno.EROFS, "for reading only"),
        (errno.EACCES, "may not write there"),
        (errno.ENOENT, "deleted or unmounted"),
    ],
)
def test_a_write_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(EventLogError, match=said), replacing(tmp_path / "file") as path:
        path.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def write_where_the_folder_goes(folder: Path) -> None:
    with replacing(folder / "file") as path:
        path.write_bytes(b"x")
        path.unlink()
        folder.rmdir()


def test_a_folder_that_was_deleted_under_a_write_is_not_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(EventLogError, match="deleted or unmounted"):
        write_where_the_folder_goes(tmp_path / "log")


def test_a_folder_whose_place_a_file_takes_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    with (
        pytest.raises(EventLogError, match=r"log.*a file stands"),
        exclusive(tmp_path / "log" / "0"),
    ):
        pass
