"""Whatever is done to a file, every row of it is accepted or refused for a reason, or the file is.

Good files of every layout are written in every type, then damaged: bytes changed, cut and
doubled, quotes put in, columns of other types.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.errors import ImportFailed
from streams.importers.readers import open_table
from streams.importers.report import ImportReport
from streams.importers.rows import Kind
from streams.importers.survey import survey

NOON = "2020-01-02T12:00:00Z"
LAYOUTS: dict[tuple[str, Kind], dict[str, Any]] = {
    ("generic", Kind.INTERACTIONS): {
        "user_id": "u", "item_id": "i", "type": "rating", "timestamp": NOON, "rating": 4,
        "review": 'said "hi", twice', "price": 9.5, "event_id": "e",
    },
    ("generic", Kind.ITEMS): {
        "item_id": "i", "title": "t", "price": 9.5, "categories": ["a", "b"], "brand": "b",
    },
    ("amazon-2023", Kind.INTERACTIONS): {
        "user_id": "u", "parent_asin": "p", "asin": "a", "rating": 4.0,
        "timestamp": 1588687728923, "title": "t", "text": "x",
    },
    ("amazon-2023", Kind.ITEMS): {
        "parent_asin": "p", "title": "t", "price": "$9.99", "store": "s", "description": ["d"],
        "categories": ["c"], "details": {"Brand": "b"},
    },
    ("movielens", Kind.INTERACTIONS): {
        "userId": 1, "movieId": 2, "rating": 4.5, "timestamp": 1147880044,
    },
    ("movielens", Kind.ITEMS): {"movieId": 2, "title": "t", "genres": "a|b"},
    ("online-retail", Kind.INTERACTIONS): {
        "Invoice": "536365", "StockCode": "85123A", "Description": "HEART", "Quantity": 6,
        "InvoiceDate": "13/12/2010 8:26", "Price": 2.55, "Customer ID": 17850,
    },
    ("online-retail", Kind.ITEMS): {
        "InvoiceNo": "536365", "StockCode": "85123A", "Description": "HEART", "Quantity": 6,
        "InvoiceDate": "13/12/2010 8:26", "UnitPrice": 2.55, "CustomerID": 17850,
    },
}  # fmt: skip
PREPARED = {
    "user_id": "u", "item_id": "i", "timestamp": 1259653500, "event_type": "purchase",
    "quantity": 1, "price": 2.5, "basket_id": "b",
}  # fmt: skip

layouts = st.sampled_from([*LAYOUTS.items(), (("online-retail", Kind.INTERACTIONS), PREPARED)])
odd_cells = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.binary(max_size=4), st.datetimes(), st.dates(), st.lists(st.integers(), max_size=2),
    st.sampled_from(["nan", "None", "1.299,99 €", "1e400", "12/31/2010 9:00", "77.0", "$5-$9"]),
    st.sampled_from(["1.299", "12,99", "12.99", "1,299.00", "1.29E+09", "77,0", "u\u200b"]),
)  # fmt: skip


def as_separated(rows: Sequence[Mapping[str, Any]], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(str(cell) for cell in row.values())
    return text.getvalue().encode("utf-8", "replace")


def as_jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(row, default=str) + b"\n" for row in rows)


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    return bytes(sink.getvalue())


WRITERS = {
    "a.csv": lambda rows: as_separated(rows, ","),
    "semicolons.csv": lambda rows: as_separated(rows, ";"),
    "excel.csv": lambda rows: b"sep=|\r\n" + as_separated(rows, "|"),
    "a.tsv": lambda rows: as_separated(rows, "\t"),
    "a.csv.gz": lambda rows: gzip.compress(as_separated(rows, ","), 1),
    "a.jsonl": as_jsonl,
    "a.parquet": as_parquet,
}


def accounted(
    name: str, content: bytes, kind: Kind, format_: str, **options: Any
) -> ImportReport | None:
    """The report, once it is checked; None if the file was refused, which names it."""
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        opened, sent, refusal = None, 0, str(path)
        try:
            opened = survey(path, kind, format_, **options)
            for _ in opened.messages:
                sent += 1
        except ImportFailed as error:
            refusal = str(error)
        assert str(path) in refusal
    if opened is None:
        return None
    report = opened.report
    assert sent == report.accepted.count
    assert report.rows == sent + sum(group.count for group in report.rejected.values())
    orjson.dumps(report.to_dict())  # whatever the file holds, the report can be shown
    return report


@pytest.mark.parametrize("name", WRITERS)
@given(
    layout=layouts,
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 40))),
    encoding=st.sampled_from([None, "utf-16", "latin-1", "cp1252", "utf-8"]),
)
@example((("online-retail", Kind.INTERACTIONS), PREPARED), [(0.5, b'"', 0)], None)
def test_no_damage_to_a_file_is_unaccounted_for(
    name: str, layout: Any, changes: list[tuple[float, bytes, int]], encoding: str | None
) -> None:
    (format_, kind), row = layout
    content = WRITERS[name]([row] * 8)
    for place, put_in, cut in changes:
        at = int(place * len(content))
        content = content[:at] + put_in + content[at + cut :]

    accounted(name, content, kind, format_, encoding=encoding)


@pytest.mark.parametrize("name", WRITERS)
@given(layout=layouts, column=st.integers(0, 6), cells=st.lists(odd_cells, max_size=4))
def test_cells_of_other_types_are_refused_by_row(
    name: str, layout: Any, column: int, cells: list[Any]
) -> None:
    (format_, kind), row = layout
    names = list(row)
    rows = [row, *({**row, names[column % len(names)]: cell} for cell in cells), row]
    try:
        content = WRITERS[name](rows)
    except (pyarrow.ArrowException, UnicodeError, TypeError, OverflowError):
        return  # this type cannot hold such a mixture

    report = accounted(name, content, kind, format_)

    if report and name == "a.jsonl":
        assert report.rows == len(rows)


EVERY_TYPE = [
    pyarrow.array([b"u1", b"\xff", None]),
    pyarrow.array([Decimal("1.50"), Decimal(77), None], pyarrow.decimal128(38, 2)),
    pyarrow.array([float("nan"), float("inf"), 1e300]),
    pyarrow.array([2**63, 2**64 - 1, None], pyarrow.uint64()),
    pyarrow.array([True, False, None]),
    pyarrow.array([[1], [], None]),
    pyarrow.array([{"a": 1}, {"a": None}, None]),
    pyarrow.array([[("k", 1)], [], None], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    pyarrow.array([0, -(2**60), 2**62], "int64").cast(pyarrow.timestamp("us")),
    pyarrow.array([0, 1, None], "int64").cast(pyarrow.timestamp("ns", "Europe/Paris")),
    pyarrow.array([0, 1, None], "int64").cast(pyarrow.timestamp("ms", "Nowhere/Land")),
    pyarrow.array([date(2020, 1, 2), None, date.max]),
    pyarrow.array([time(1), None, time.max]),
    pyarrow.array([timedelta(1), None, timedelta(0)], pyarrow.duration("ns")),
    pyarrow.array(["a", "b", None]).dictionary_encode(),
    pyarrow.array([b"x", b"\xff", None], pyarrow.binary()).view(pyarrow.string()),
    pyarrow.nulls(3),
    pyarrow.array([datetime(1, 1, 1, tzinfo=UTC), None, datetime(9999, 12, 31, tzinfo=UTC)]),
]


@pytest.mark.parametrize("odd", EVERY_TYPE, ids=lambda array: str(array.type))
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(layout))
def test_parquet_columns_of_any_type_are_read_by_row(odd: Any, layout: tuple[str, Kind]) -> None:
    (format_, kind), row = layout, LAYOUTS[layout]
    for name in row:
        table = pyarrow.Table.from_pylist([row] * 3)
        index = table.column_names.index(name)
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table.set_column(index, name, odd), sink)

        report = accounted("a.parquet", bytes(sink.getvalue()), kind, format_)

        assert report is not None
        assert report.rows == 3


lines_with_quotes = st.lists(
    st.text(st.sampled_from('"",x\n'), max_size=12).map(lambda text: text.replace("\n", " ")),
    max_size=12,
)


@settings(max_examples=300)
@given(rows=lines_with_quotes)
@example(rows=['"x', "y", 'z"'])
def test_every_line_of_a_csv_is_in_exactly_one_row(rows: list[str]) -> None:
    """Each line carries its number; it must come out once, in a row that is read or refused."""
    content = "n,a,b\n" + "".join(f"<{n}>,{row}\n" for n, row in enumerate(rows, start=2))
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        path.write_text(content)
        try:
            table = list(open_table(path).rows)
        except ImportFailed:
            assert not rows
            return

    found: list[int] = []
    for row in table:
        if row.values is None:
            found.append(row.line)  # a refused row is one line: the next begins after it
        else:
            held = ",".join(row.values.values())
            found.extend(n for n in range(2, len(rows) + 2) if f"<{n}>" in held)
    assert found == list(range(2, len(rows) + 2))


@settings(max_examples=200)
@given(text=st.text(st.sampled_from("\"'\\\t x\n\r"), max_size=60))
def test_every_line_of_a_tsv_is_a_row(text: str) -> None:
    content = f"a\tb\nfirst\t1\n{text}"
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.tsv")
        path.write_text(content, newline="")
        rows = list(open_table(path).rows)

    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert len(rows) == sum(bool(line) for line in lines) - 1  # less the header
