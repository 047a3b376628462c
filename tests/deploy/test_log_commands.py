"""The commands that read the log, whole and damaged, as the terminal shows them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from deploy import cli
from models.errors import EventLogError
from models.settings import Settings
from streams.event_log import SegmentLog
from tests.conftest import role_environment
from tests.streams.event_log.rows import invalid_row, row
from tests.streams.logged import record, record_of
from tests.streams.test_parity import EVENTS, profile, request


@pytest.fixture
def settings(make_settings) -> Settings:
    return make_settings(kafka={"partitions": 1})


def palate(settings: Settings, command: str, *arguments: str) -> Result:
    environment = role_environment(settings)
    return CliRunner().invoke(cli.app, [command, *arguments], env=environment)


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


# -- a damaged log -----------------------------------------------------------------------------

READING = {
    "sql": ["SELECT count(value), max(value) FROM interactions"],
    "history": ["ann"],
    "recommend": ["ann"],
    "outcomes": [],
}
NEEDING_ALL = {"check": ["parity"], "rebuild": ["--dump", "{folder}/states.jsonl"]}


def damaged(settings: Settings, damage: str) -> Path:
    """A log whose first segment of interactions is damaged; offsets 0 and 1 are in it."""
    log = SegmentLog(settings.log_dir)
    for first in (0, 2, 4):
        part = EVENTS[first : first + 2]
        record(
            log, settings, [record_of("interactions", 0, first + n, e) for n, e in enumerate(part)]
        )
    record(log, settings, [record_of("profile-requests", 0, 0, request(settings, 3))])
    path = log.partition_folder("interactions", 0) / log.segments("interactions", 0)[0].file
    content = bytearray(path.read_bytes())
    match damage:
        case "cut off":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
        case "overwritten":
            path.write_bytes(bytes(len(content)))
    return path


DAMAGES = ["cut off", "empty", "gone", "overwritten"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", READING)
def test_what_shows_the_log_shows_the_rest_of_a_damaged_one_or_names_the_file(
    settings, command, damage, caplog
):
    path = damaged(settings, damage)
    result = palate(settings, command, *READING[command])
    if result.exit_code == 1:
        assert isinstance(result.exception, EventLogError)
        assert "palate check log" in str(result.exception)
    else:
        assert result.exit_code in (0, 3)  # 3: it is not in the rest
    assert path.name in caplog.text + str(result.exception)
    assert "offsets 0..1" in caplog.text + str(result.exception)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", READING)
def test_once_it_is_set_apart_the_rest_is_shown(settings, command, damage, caplog):
    damaged(settings, damage)
    assert palate(settings, "check", "log").exit_code == 1
    caplog.clear()
    result = palate(settings, command, *READING[command])
    assert result.exit_code == (3 if command == "recommend" else 0), result.exception
    assert "offsets 0..1" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", NEEDING_ALL)
def test_what_needs_every_event_refuses_a_damaged_log_unless_told(
    settings, command, damage, tmp_path, caplog
):
    path = damaged(settings, damage)
    arguments = [argument.format(folder=tmp_path) for argument in NEEDING_ALL[command]]
    result = palate(settings, command, *arguments)
    assert isinstance(result.exception, EventLogError)
    assert path.name in str(result.exception)
    told = settings.log.model_copy(update={"skip_damaged": True})
    lenient = settings.model_copy(update={"log": told})
    result = palate(lenient, command, *arguments)
    assert not isinstance(result.exception, EventLogError)  # parity tells what differs by it
    assert path.name in caplog.text


def test_check_log_reads_everything_and_sets_damaged_segments_apart(settings):
    path = damaged(settings, "overwritten")
    result = palate(settings, "check", "log", "--json")
    found, _ = orjson.loads(result.stdout)
    assert (result.exit_code, found["rows"], found["segments"]) == (1, 4, 2)
    assert [hole["file"] for hole in found["missing"]] == [path.name]
    assert [Path(name).name for name in found["apart"]] == [path.name]
    assert "2 rows missing" in palate(settings, "check", "log").stdout


def test_check_log_passes_a_log_that_is_whole(settings):
    logged(settings)
    result = palate(settings, "check", "log")
    assert (result.exit_code, "6 rows read: 0 rows missing" in result.stdout) == (0, True)
    assert palate(settings, "check", "log", "--json").exit_code == 0


def test_a_value_that_is_no_message_any_more_is_told_of(settings):
    broken = row(0) | {"value": b'{"event_id": "e0", "user'}
    SegmentLog(settings.log_dir).append("interactions", 0, [broken])
    result = palate(settings, "history", "ann")
    assert isinstance(result.exception, EventLogError)
    assert "palate check log" in str(result.exception)
