"""`palate evaluate` on small data: the table, the files, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from deploy.cli import app
from models.errors import PalateError

SAMPLE = Path(__file__).parents[2] / "data" / "sample"


def palate(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_table_is_printed_and_a_run_folder_written(tmp_path: Path) -> None:
    said = palate(
        *("--data", SAMPLE, "--system", "random", "--system", "popularity", "--users", 20),
        *("--ages", "--out", tmp_path),
    )

    assert "popularity" in said
    assert "ranked like all others" in said
    assert {path.name for path in tmp_path.iterdir()} >= {
        *("table.md", "results.json", "sessions.npz", "by-history.png", "by-age.png"),
    }


def test_json_is_what_is_written(tmp_path: Path) -> None:
    said = palate(
        *("--data", SAMPLE, "--system", "popularity", "--users", 20, "--mask-seen"),
        *("--protocol", "leave-one-out", "--out", tmp_path, "--json"),
    )

    found = orjson.loads(said)
    assert found == orjson.loads((tmp_path / "results.json").read_bytes())
    assert (found["protocol"], found["mask_seen"]) == ("leave-one-out", True)


def test_an_unknown_system_and_a_missing_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="no system is called nosuch"):
        palate("--data", SAMPLE, "--system", "nosuch", "--out", tmp_path)
    with pytest.raises(PalateError, match="not there"):
        palate("--data", tmp_path / "nowhere")
