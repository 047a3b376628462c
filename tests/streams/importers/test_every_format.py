"""What holds for every layout of every format."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import pytest

from models.schemas import Interaction, Item, to_epoch_ms
from streams.importers.layouts import FORMATS, fitting
from streams.importers.survey import survey
from tests.streams.importers.formats import (
    INTERACTIONS,
    ITEMS,
    NOON,
    READING,
    ROWS,
    Good,
    adapted,
    refusal,
)

PAGE = (Path(__file__).parents[3] / "docs" / "importing.md").read_text()
IDS = [(good, column) for good in ROWS for column in good.layout.ids]
TIMES = [(good, column) for good in ROWS for column in good.layout.times]


@pytest.mark.parametrize("name", FORMATS)
def test_every_layout_has_a_good_row_here(name: str) -> None:
    lacking = [
        (kind, layout.required)
        for kind, layouts in FORMATS[name].layouts.items()
        for layout in layouts
        if not any(
            (good.format, good.kind) == (name, kind) and fitting(layouts, good.row) is layout
            for good in ROWS
        )
    ]
    assert lacking == [], "add a row to tests/streams/importers/formats.py"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_on_the_page(name: str) -> None:
    assert re.search(rf"^\| `{name}`( \(default\))? \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("good", ROWS, ids=str)
def test_a_good_row_becomes_a_message_and_read_again_the_same(good: Good) -> None:
    first, again = (adapted(good.kind, good.format, good.row) for _ in range(2))

    assert [type(message) for message in first] == [
        {ITEMS: Item, INTERACTIONS: Interaction}[good.kind]
    ]
    assert first == again


@pytest.mark.parametrize(("good", "column"), IDS, ids=str)
@pytest.mark.parametrize(
    "written",
    [b"u1", 1.5, True, ["u"], {"u": 1}, 2.0**53, 1e23, float("inf"), Decimal("1.5"), NOON],
    ids=str,
)
def test_ids_that_are_neither_text_nor_whole_numbers_are_unusable(
    good: Good, column: str, written: Any
) -> None:
    refused = refusal(good.kind, good.format, good.row | {column: written})

    assert refused.reason == "unusable id"
    assert column in refused.detail


@pytest.mark.parametrize(("good", "column"), TIMES, ids=str)
@pytest.mark.parametrize("written", [float("inf"), float("nan"), 1e300, True, b"1", [1], "0001"])
def test_times_that_are_none_are_refused(good: Good, column: str, written: Any) -> None:
    refused = refusal(good.kind, good.format, good.row | {column: written})

    assert refused.reason in ("invalid value", "missing value")
    assert any(named in refused.detail for named in (column, "timestamp", "no time"))


@pytest.mark.parametrize(("good", "column"), TIMES, ids=str)
@pytest.mark.parametrize("written", ["1.29E+09", "1.29119E+09", "1.29e9", "129e7"])
def test_a_shortened_time_is_refused(good: Good, column: str, written: str) -> None:
    assert column in refusal(good.kind, good.format, good.row | {column: written}).detail


@pytest.mark.parametrize(("good", "column"), TIMES, ids=str)
def test_a_datetime_is_a_time(good: Good, column: str) -> None:
    (message,) = adapted(good.kind, good.format, good.row | {column: NOON})

    assert isinstance(message, Interaction)
    assert message.timestamp == to_epoch_ms("2020-01-02T12:00:00Z")


@pytest.mark.parametrize(("good", "column"), IDS, ids=str)
@pytest.mark.parametrize("type_", [pyarrow.float16(), pyarrow.float32()], ids=str)
def test_ids_of_short_floats_are_unusable_for_two_may_be_one(
    tmp_path: Path, good: Good, column: str, type_: pyarrow.DataType
) -> None:
    path = tmp_path / "a.parquet"
    cells = pyarrow.array([8504.0, 3.0]).cast(type_)
    table = pyarrow.Table.from_pylist([good.row] * len(cells))
    others = [other for other in table.column_names if other != column]
    pyarrow.parquet.write_table(table.select(others).append_column(column, cells), path)
    opened = survey(path, good.kind, good.format, reading=READING)

    assert list(opened.messages) == []
    (unusable,) = opened.report.rejected.items()
    assert unusable[0] == "unusable id"
    assert unusable[1].count == 2
    assert f"{column}: " in unusable[1].first[0][1]
    assert "16 or 32 bits" in unusable[1].first[0][1]


@pytest.mark.parametrize("good", ROWS, ids=str)
def test_a_json_row_that_lacks_any_column_is_accounted_for(tmp_path: Path, good: Good) -> None:
    row = good.row
    path = tmp_path / "a.jsonl"
    rows = [row, *({key: row[key] for key in row if key != lacking} for lacking in row)]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))

    opened = survey(path, good.kind, good.format, reading=READING)

    assert len(list(opened.messages)) + opened.report.rejected_rows == len(rows)


@pytest.mark.parametrize("good", ROWS, ids=str)
@pytest.mark.parametrize("bad", ["{", "[", "a byte", "a column", "a list"])
def test_no_row_at_the_head_of_a_jsonl_ends_an_import(tmp_path: Path, good: Good, bad: str) -> None:
    needed = set(good.layout.required[:1])
    lacking = {k: v for k, v in good.row.items() if k not in needed | set(good.layout.ids)}
    head = {
        "{": b"{",
        "[": b"[",
        "a byte": b'{"x": "\xff"}',
        "a column": orjson.dumps(lacking),
        "a list": b"[1]",
    }[bad]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([head] * 300 + [orjson.dumps(good.row)]))

    opened = survey(path, good.kind, good.format, reading=READING)

    assert len(list(opened.messages)) == 1
    assert (opened.report.rows, opened.report.rejected_rows) == (301, 300)
