"""`palate sql`, `check parity` and `rebuild --dump`: the log as the terminal shows it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from deploy.commands import check
from deploy.commands.rebuild import rebuild
from deploy.commands.sql import sql
from models.settings import Settings
from streams.event_log import SegmentLog
from tests.conftest import role_environment
from tests.streams.event_log.rows import invalid_row, row
from tests.streams.logged import record, record_of
from tests.streams.test_parity import EVENTS, profile, request

SINGLE = {"sql": Typer(), "rebuild": Typer()}
SINGLE["sql"].command()(sql)
SINGLE["rebuild"].command()(rebuild)


@pytest.fixture
def settings(make_settings) -> Settings:
    return make_settings(kafka={"partitions": 1})


def palate(settings: Settings, command: str, *arguments: str) -> Result:
    app = check.app if command == "check" else SINGLE[command]
    return CliRunner().invoke(app, arguments, env=role_environment(settings))


def test_sql_prints_a_table_with_text_as_it_is(settings):
    SegmentLog(settings.log_dir).append("interactions", 0, [row(0, item_id="[red]")])
    shown = palate(settings, "sql", "SELECT item_id, rating FROM interactions").stdout
    assert "item_id" in shown
    assert "[red]" in shown


def test_sql_says_when_there_are_more_rows_than_shown(settings):
    shown = palate(settings, "sql", "SELECT * FROM range(9)", "--limit", "8").stdout
    assert "the first 8 rows" in shown
    assert "the first" not in palate(settings, "sql", "FROM range(9)", "--limit", "9").stdout


def test_sql_writes_json_for_machines(settings):
    SegmentLog(settings.log_dir).append("interactions", 0, [row(0), invalid_row(1, b"\xff\x00")])
    query = 'SELECT "offset", value, 1.5 AS x FROM interactions ORDER BY 1'
    first, second = orjson.loads(palate(settings, "sql", query, "--json").stdout)
    assert (first["offset"], orjson.loads(first["value"])["event_id"]) == (0, "e0")
    assert second == {"offset": 1, "value": "ff00", "x": 1.5}
    assert orjson.loads(palate(settings, "sql", "FROM items", "--json").stdout) == []


def test_sql_without_a_query_lists_the_views(settings):
    views = {line["view"] for line in orjson.loads(palate(settings, "sql", "--json").stdout)}
    assert {"interactions", "items", "edits", "requests", "profiles", "releases"} <= views


def logged(settings: Settings, *asked) -> None:
    log = SegmentLog(settings.log_dir)
    for topic, found in (("interactions", EVENTS), ("profile-requests", asked)):
        record(log, settings, [record_of(topic, 0, n, one) for n, one in enumerate(found)])
    answers = [record_of("profiles", 0, n, profile(one)) for n, one in enumerate(asked)]
    record(log, settings, answers)


def test_check_parity_counts_what_it_checked(settings):
    logged(settings, request(settings, 1), request(settings, 3))
    assert (
        "2 requests and 2 profiles checked: 0 mismatches"
        in palate(settings, "check", "parity").stdout
    )


def test_check_parity_fails_where_something_differs(settings):
    logged(settings, request(settings, 1, as_of=EVENTS[0].timestamp))
    result = palate(settings, "check", "parity", "--json")
    report = orjson.loads(result.stdout)
    assert (result.exit_code, report["mismatch_count"]) == (1, 1)
    assert report["mismatches"][0]["kind"] == "windows"
    assert "window long" in palate(settings, "check", "parity").stdout


def test_check_parity_without_a_log_is_not_a_success(settings):
    assert palate(settings, "check", "parity").exit_code == 3


def test_rebuild_dumps_the_states_that_the_log_says(settings, tmp_path: Path):
    logged(settings, request(settings, 3))
    file = tmp_path / "states.jsonl"
    assert palate(settings, "rebuild", "--dump", str(file)).exit_code == 0
    (line,) = map(orjson.loads, file.read_bytes().splitlines())
    assert (line["user_id"], line["applied_offset"], line["requests"]) == ("ann", 5, 1)
    assert [entry["event_id"] for entry in line["history"]] == [e.event_id for e in EVENTS]
