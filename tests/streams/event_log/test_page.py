"""docs/event-log.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.settings import DEFAULT_WEIGHTS as WEIGHTS
from streams.dead_letter_replay import accepted, read_corrections
from streams.event_log import VIEW_OF, SegmentLog
from streams.event_log.columns import RAW_NAMES
from streams.event_log.query import ask
from tests.streams.event_log.rows import row

PAGE = (Path(__file__).parents[3] / "docs" / "event-log.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("query", QUERIES)
def test_its_queries_run(tmp_path: Path, query: str) -> None:
    SegmentLog(tmp_path).append("interactions", 0, [row(0, user_id="13085")])
    items = b'{"items": [{"item_id": "i", "reason": {"text": "because"}}]}'
    sent = {"offset": 0, "partition": 0, "status": "ok", "value": items, "user_id": "13085"}
    SegmentLog(tmp_path).append("recommendations", 0, [sent])
    with ask(tmp_path, query, WEIGHTS) as answer:
        rows = list(answer.rows)
    assert bool(rows) == ("invalid" not in query and "profiles" not in query)


def test_its_table_has_every_raw_column() -> None:
    table = PAGE.partition("## Columns")[2].partition("Then come")[0]
    first_cells = "".join(line.split("|")[1] for line in table.splitlines() if line[:1] == "|")
    assert set(re.findall(r"`(\w+)`", first_cells)) == set(RAW_NAMES)


def test_it_names_the_views_that_are_called_otherwise_than_their_topic() -> None:
    for topic, view in VIEW_OF.items():
        assert topic == view or f"`{topic}` is `{view}`" in PAGE


def test_its_correction_would_be_accepted(tmp_path: Path) -> None:
    (line,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "corrected.jsonl").write_text(line)
    (correction,) = read_corrections(tmp_path / "corrected.jsonl")
    message = accepted(correction, now_ms=2_000_000_000_000, future_tolerance_ms=0)
    assert getattr(message, "user_id", None) == "13085"
