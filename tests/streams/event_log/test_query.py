from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import EventLogError
from models.settings import DEFAULT_WEIGHTS as WEIGHTS
from streams.event_log import SegmentLog
from streams.event_log.query import ask
from tests.streams.event_log.rows import rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SegmentLog(tmp_path / "log").append("interactions", 0, rows(range(2_500)))
    return tmp_path / "log"


def test_a_select_is_answered_with_columns_and_rows(folder: Path) -> None:
    with ask(
        folder, "SELECT user_id, count(*) AS n FROM interactions GROUP BY 1", WEIGHTS
    ) as answer:
        assert answer.columns == ("user_id", "n")
        assert list(answer.rows) == [("ann", 2_500)]


def test_all_rows_are_streamed(folder: Path) -> None:
    with ask(folder, "FROM interactions", WEIGHTS) as answer:
        assert sum(1 for _ in answer.rows) == 2_500


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW items",
        "CREATE TABLE t (x INT)",
        "COPY interactions TO '{folder}/x.csv'",
        "WITH a AS (COPY (SELECT 1) TO '{folder}/x.csv') SELECT * FROM a",
        "SELECT * FROM query('WITH a AS (COPY (SELECT 1) TO ''{folder}/x.csv'') FROM a')",
        "SELECT 1; COPY (SELECT 1) TO '{folder}/x.csv'",
        "ATTACH '{folder}/x.db'",
        "SET enable_external_access = true",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/x.csv'",
        "",
    ],
)
def test_whatever_does_not_only_read_is_refused(folder: Path, sql: str) -> None:
    before = sorted(folder.rglob("*"))
    with (
        pytest.raises(EventLogError, match=r"refused|one SELECT|one query"),
        ask(folder, sql.format(folder=folder), WEIGHTS),
    ):
        pass
    assert sorted(folder.rglob("*")) == before


def test_files_outside_the_log_cannot_be_read(folder: Path) -> None:
    (folder.parent / "secret.csv").write_text("a\n1\n")
    with (
        pytest.raises(EventLogError, match="cannot be answered"),
        ask(folder, f"SELECT * FROM '{folder.parent}/secret.csv'", WEIGHTS) as answer,
    ):
        list(answer.rows)


def test_a_wrong_query_says_what_is_wrong(folder: Path) -> None:
    with (
        pytest.raises(EventLogError, match="colour"),
        ask(folder, "SELECT colour FROM items", WEIGHTS),
    ):
        pass
