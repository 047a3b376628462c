"""Files and folders that replace others: the old one or the new one, never a part."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.durable import making, replacing


def filled(folder: Path, name: str) -> Path:
    with making(folder) as draft:
        (draft / name).write_text(name)
    return folder


def cut_short(path: Path) -> None:
    path.write_text("new")
    raise ValueError("full")


def test_a_folder_takes_the_place_of_another_with_nothing_of_it(tmp_path: Path) -> None:
    best = filled(tmp_path / "best", "old")

    with making(best, replace=True) as draft:
        (draft / "new").write_text("new")
        assert [path.name for path in best.iterdir()] == ["old"]

    assert [path.name for path in best.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_folder_that_is_there_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    best = filled(tmp_path / "best", "old")

    with pytest.raises(OSError, match="not empty"), making(best) as draft:
        (draft / "new").write_text("new")

    assert [path.name for path in best.iterdir()] == ["old"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_fails_leaves_what_was_there(tmp_path: Path, replace: bool) -> None:
    name = "best" if replace else "other"
    best = filled(tmp_path / "best", "old")

    with pytest.raises(ValueError, match="full"), making(tmp_path / name, replace=replace) as draft:
        cut_short(draft / "new")

    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (best / "old").read_text() == "old"


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_text("old")

    with pytest.raises(ValueError, match="full"), replacing(path) as draft:
        cut_short(draft)

    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["one"]
