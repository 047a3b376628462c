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


def test_what_is_left_out_of_a_row_and_what_is_doubtful_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f"user_id,item_id,type,timestamp,price\n{GOOD},5\nu,77.0{GOOD[3:]},1.5 €\n")

    result = run("interactions", path, "--dry-run")

    assert "without price" in result.stdout
    assert "3: '1.5 €' is not a number" in result.stdout
    assert "2 rows read: 2 accepted, 0 left out." in result.stdout
    assert "item_id 77.0 is another than item_id 77" in result.stdout


def test_dates_of_two_readings_need_the_option(tmp_path: Path) -> None:
    path = tmp_path / "invoices.csv"
    path.write_text(
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID\n"
        "1,85123A,HEART,6,01/12/2010 08:26,2.55,17850\n"
    )
    arguments = ("interactions", path, "--format", "online-retail", "--dry-run")

    assert "--dates day-first" in str(run(*arguments).exception)
    assert "2010-12-01T08:26" in run(*arguments, "--dates", "day-first").stdout
    assert "2010-01-12T08:26" in run(*arguments, "--dates", "month-first").stdout


def test_words_for_nobody_come_from_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv_file(tmp_path, GOOD, f"Guest{GOOD[1:]}")
    monkeypatch.setenv("PALATE_IMPORTER__ABSENT_WORDS", '["GUEST"]')

    (report,) = json.loads(run("interactions", path, "--dry-run", "--json").stdout)

    assert report["rejected"]["missing value"]["first"] == [{"line": 3, "detail": "no user_id"}]


def test_what_a_terminal_would_obey_is_shown_as_text(tmp_path: Path) -> None:
    result = run("interactions", csv_file(tmp_path, f"\x1b[31m{GOOD}"), "--dry-run")

    assert "\\x1b[31mu view i" in result.stdout


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
