"""`palate import` as people and scripts see it. (The broker: tests/streams/importers.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deploy import cli
from models.errors import ImportFailed

SAMPLE = Path(__file__).parents[2] / "data" / "sample"


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["import", *map(str, arguments)])


def csv_file(folder: Path, *lines: str) -> Path:
    path = folder / "events.csv"
    path.write_text("\n".join(("user_id,item_id,type,timestamp", *lines)) + "\n")
    return path


GOOD = "u,i,view,2020-01-02T00:00:00Z"
ABSURD = "u,i,stare,2020-01-02T00:00:00Z"


def test_the_whole_sample_is_valid() -> None:
    for kind, rows in (("items", 4_619), ("interactions", 62_165)):
        result = run(
            kind, SAMPLE / f"{kind}.parquet", "--format", "online-retail", "--dry-run", "--json"
        )

        (report,) = json.loads(result.stdout)
        assert report["accepted"]["count"] == rows
        assert report["rejected"] == {}
        assert report["out_of_order"]["count"] == 0


def test_a_dry_run_shows_what_would_be_left_out_and_why(tmp_path: Path) -> None:
    result = run("interactions", csv_file(tmp_path, GOOD, ABSURD, GOOD), "--dry-run")

    assert result.exit_code == 0
    assert "invalid value" in result.stdout
    assert "3: type: Input should be" in result.stdout
    assert "Nothing was sent (dry run)." in result.stdout


def test_disorder_in_time_is_pointed_out(tmp_path: Path) -> None:
    earlier = GOOD.replace("2020", "2019")

    result = run("interactions", csv_file(tmp_path, GOOD, earlier), "--dry-run")

    assert "1 events are more than a day older" in result.stdout
    assert "line 3" in result.stdout


def test_markup_in_a_file_is_shown_as_it_is(tmp_path: Path) -> None:
    result = run("interactions", csv_file(tmp_path, f"[red]{GOOD}"), "--dry-run")

    assert "[red]u view i" in result.stdout


def test_a_file_of_which_no_row_can_be_used_is_a_failure(tmp_path: Path) -> None:
    result = run("interactions", csv_file(tmp_path, ABSURD), "--dry-run")

    assert isinstance(result.exception, ImportFailed)
    assert "invalid value" in result.stdout


def test_reports_of_earlier_files_are_shown_when_a_later_one_fails(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.touch()

    result = run("interactions", csv_file(tmp_path, GOOD), empty, "--dry-run", "--json")

    assert isinstance(result.exception, ImportFailed)
    assert json.loads(result.stdout)[0]["accepted"]["count"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ("interactions", "nowhere.csv"),
        ("users", SAMPLE / "items.parquet"),
        ("items", SAMPLE / "items.parquet", "--limit", "0"),
        ("items", SAMPLE / "items.parquet", "--speed", "0"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(wrong: tuple[str | Path, ...]) -> None:
    assert run(*wrong).exit_code == 2
