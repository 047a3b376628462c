"""Files that are what they claim to be, and the many that are not."""

from __future__ import annotations

import encodings.aliases
import gzip
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from models.errors import ImportFailed
from streams.importers import lines, parquet, readers
from streams.importers.readers import open_table
from streams.importers.rows import FileRow, UnreadableCell


def written(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def rows_of(path: Path, **options: Any) -> list[FileRow]:
    return list(open_table(path, **options).rows)


def values_of(path: Path, **options: Any) -> list[Any]:
    return [row.values for row in rows_of(path, **options)]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "A.CSV"])
def test_csv_yields_a_row_per_record_with_its_first_line(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, 'a,b\r\n1,"two\r\nlines, é"\r\n\r\n3,4\r\n')

    assert rows_of(path) == [
        FileRow(2, {"a": "1", "b": "two\r\nlines, é"}),
        FileRow(5, {"a": "3", "b": "4"}),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson", "a.json"])
def test_jsonl_yields_a_row_per_line(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, '{"a": 1}\n\n{"b": [2]}\n')

    table = open_table(path)

    assert table.columns == ("a", "b")
    assert list(table.rows) == [FileRow(1, {"a": 1}), FileRow(3, {"b": [2]})]


def test_dat_fields_are_parted_by_double_colons_and_latin_1(tmp_path: Path) -> None:
    path = written(tmp_path / "movies.dat", "1::Amélie (2001)::Comedy\n2::x\n".encode("latin-1"))

    rows = rows_of(path, dat_columns=("id", "title", "genres"))

    assert rows[0] == FileRow(1, {"id": "1", "title": "Amélie (2001)", "genres": "Comedy"})
    assert rows[1].problem == "2 fields under 3 columns"


def test_parquet_is_read_in_batches_with_python_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PARQUET_BATCH", 2)
    noon = datetime(2020, 1, 2, 12, tzinfo=UTC)
    times = pyarrow.array([noon] * 5, pyarrow.timestamp("ns", "UTC"))
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"n": range(5), "at": times}), path)

    table = open_table(path)

    assert table.columns == ("n", "at")
    assert list(table.rows) == [FileRow(n + 1, {"n": n, "at": noon}) for n in range(5)]
    assert table.fraction() == 1.0


@pytest.mark.parametrize(
    ("mark", "name"), [(";", "a.csv"), ("\t", "a.tsv"), ("|", "a.csv"), ("|", "a.tsv")]
)
def test_other_separators_are_recognised_by_the_header(
    tmp_path: Path, mark: str, name: str
) -> None:
    assert values_of(written(tmp_path / name, f"a{mark}b\n1{mark}2,5\n")) == [
        {"a": "1", "b": "2,5"}
    ]


@pytest.mark.parametrize("line", ["sep={}", '"sep={}"', "SEP={}\r", "\ufeffsep={}", "\nsep={}"])
@pytest.mark.parametrize("mark", [";", ",", "|", "\t", "^"])
def test_a_first_line_for_excel_names_the_separator_and_is_no_header(
    tmp_path: Path, mark: str, line: str
) -> None:
    path = written(tmp_path / "a.csv", f"{line.format(mark)}\na,x{mark}b\n1{mark}2\n")
    if mark == ",":
        path = written(tmp_path / "a.csv", f'{line.format(mark)}\n"a,x",b\n1,2\n')

    assert values_of(path) == [{"a,x": "1", "b": "2"}]


@pytest.mark.parametrize("line", ["sep=", "sep=;,,,", "sep=::", "sep=a", 'sep="'])
def test_a_line_for_excel_that_names_no_separator_is_refused(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "a.csv", f"{line}\na;b\n1;2\n")

    with pytest.raises(ImportFailed, match=rf"line 1: '{line}' should name the one sign"):
        open_table(path)


def test_a_line_for_excel_alone_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="has no rows"):
        open_table(written(tmp_path / "a.csv", "sep=;\n"))


def test_the_line_for_excel_of_a_file_that_was_appended_is_no_row(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "a.csv", "sep=;\na;b\n1;2\nsep=;\na;b\nsep=;4\n"))

    assert [row.values for row in rows] == [
        {"a": "1", "b": "2"},
        None,
        None,
        {"a": "sep=", "b": "4"},
    ]
    assert "separator" in rows[1].problem


@pytest.mark.parametrize(("mark", "title"), [(",", "b; c; d"), (";", "b, c, d"), ("|", "b, c;")])
def test_separators_within_quotes_separate_nothing(tmp_path: Path, mark: str, title: str) -> None:
    path = written(tmp_path / "a.csv", f'"a"{mark}"{title}"\n1{mark}2\n')

    assert values_of(path) == [{"a": "1", title: "2"}]


@pytest.mark.parametrize("again", ["a,b", "\ufeffa,b", '"a", b ', "a,b\r"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_header_of_a_file_that_was_appended_is_no_row(
    tmp_path: Path, name: str, again: str
) -> None:
    content = f"a,b\n1,2\n{again}\n3,4\na,4\n"
    path = written(tmp_path / name, content.replace(",", "\t") if "tsv" in name else content)

    rows = rows_of(path)

    assert [row.values for row in rows] == [
        {"a": "1", "b": "2"},
        None,
        {"a": "3", "b": "4"},
        {"a": "a", "b": "4"},
    ]
    assert rows[1].problem == "the header once more: files were joined"


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert values_of(written(tmp_path / "a.csv", "\ufeffa,b\n1,2\n")) == [{"a": "1", "b": "2"}]


def test_gzip_is_recognised_by_content_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))

    assert values_of(path) == [{"a": "1", "b": "2"}]


def test_a_row_with_another_number_of_fields_is_a_problem_of_that_row(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "a.csv", "a,b\n1\n1,2,3\n4,5\n"))

    assert [row.problem for row in rows] == [
        "1 fields under 2 columns",
        "3 fields under 2 columns",
        "",
    ]


def test_a_stray_quote_is_a_problem_of_that_row(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "a.csv", 'a,b\n"x"y,1\n3,4\n'))

    assert rows[0].problem.startswith("not CSV")
    assert rows[-1] == FileRow(3, {"a": "3", "b": "4"})


def test_a_line_that_is_no_json_object_is_a_problem_of_that_line(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "a.jsonl", '{"a": 1}\n{"a": \n[1]\nNaN\n'))

    assert [row.values for row in rows] == [{"a": 1}, None, None, None]
    assert [row.line for row in rows] == [1, 2, 3, 4]


def test_reading_shows_how_far_it_has_come(tmp_path: Path) -> None:
    table = open_table(written(tmp_path / "a.csv", "a,b\n" + "1,2\n" * 50_000))

    before = table.fraction()
    for _ in table.rows:
        pass

    assert before < 0.5
    assert table.fraction() == 1.0


def failure(path: Path, **options: Any) -> str:
    with pytest.raises(ImportFailed) as caught:
        rows_of(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.csv.gz"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()

    assert "empty" in failure(path)


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "a,b\n"), ("a.csv.gz", ""), ("a.jsonl", "\n\n")]
)
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    assert "no rows" in failure(written(tmp_path / name, content))


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": pyarrow.array([], "int64")}), path)

    assert "no rows" in failure(path)


def test_a_byte_of_another_encoding_spoils_its_line_only(tmp_path: Path) -> None:
    content = "a,b\n1,é\n".encode() + "2,é\n".encode("latin-1") + b"3,x\n"

    rows = rows_of(written(tmp_path / "a.csv", content))

    assert [(row.line, row.values and row.values["b"]) for row in rows] == [
        (2, "é"), (3, None), (4, "x"),
    ]  # fmt: skip
    assert "byte 0xe9 at column 3 is not utf-8" in rows[1].problem
    assert "--encoding" in rows[1].problem


def test_a_header_in_another_encoding_is_refused(tmp_path: Path) -> None:
    message = failure(written(tmp_path / "a.csv", "à,b\n1,2\n".encode("latin-1")))

    assert "line 1" in message
    assert "0xe0" in message


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.csv.gz"])
@pytest.mark.parametrize(
    ("written_in", "encoding"),
    [
        ("utf-16", None), ("utf-16", "utf-16"), ("utf-16-le", "utf-16"), ("utf-16-be", "utf-16"),
        ("utf-16-be", "utf-16-be"), ("utf-32", None), ("utf-32-be", "utf_32"),
        ("utf-16-le", "UTF16"), ("utf-16-be", "u16"), ("utf-32-le", "utf 32"),
        ("utf-8-sig", None), ("utf-8-sig", "utf-8"), ("cp1252", "cp1252"), ("utf-8", "utf-8-sig"),
    ],
)  # fmt: skip
def test_encodings_are_read_by_name_or_by_their_mark(
    tmp_path: Path, name: str, written_in: str, encoding: str | None
) -> None:
    rows = [{"a": "1", "b": "Zoë"}, {"a": "2", "b": "ĊŊ" if "utf" in written_in else "é"}]
    mark = "\t" if "tsv" in name else ","
    table = "".join(f"{row['a']}{mark}{row['b']}\r\n" for row in [{"a": "a", "b": "b"}, *rows])
    records = "".join(f'{{"a": "{row["a"]}", "b": "{row["b"]}"}}\n' for row in rows)
    path = written(tmp_path / name, (records if "jsonl" in name else table).encode(written_in))

    assert values_of(path, encoding=encoding) == rows


def test_utf_16_that_nobody_named_is_recognised_by_its_null_bytes(tmp_path: Path) -> None:
    assert "--encoding utf-16" in failure(
        written(tmp_path / "a.csv", "a,b\n1,2\n".encode("utf-16-le"))
    )


@pytest.mark.parametrize("encoding", sorted({*encodings.aliases.aliases.values(), "", "a\0b", "ü"}))
def test_no_name_of_an_encoding_is_a_defect(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "a.csv", b"a,b\n1,\xe9\x80\n\xff\xfe,+\xdc\n")
    with suppress(ImportFailed):
        assert all(row.values or row.problem for row in rows_of(path, encoding=encoding))


def test_another_encoding_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "a,b\n2,£\n".encode("latin-1"))

    assert values_of(path, encoding="latin-1") == [{"a": "2", "b": "£"}]
    assert "'klingon'" in failure(path, encoding="klingon")


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_truncated_gzip_is_refused_with_the_line(tmp_path: Path, name: str) -> None:
    lines = [f'{{"a": {n}, "b": "{n * n}"}}\n' for n in range(2_000)]
    whole = gzip.compress("".join(["a,b\n" if "csv" in name else "", *lines]).encode())
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) // 2])

    message = failure(path)

    assert "truncated" in message
    assert int(message.split("line ")[1].split(":")[0]) > 100


def test_what_is_named_gz_must_be_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(b"a,b\n1,2\n")

    assert "not a gzip file" in failure(path)


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": range(1000)}), path)
    path.write_bytes(path.read_bytes()[:-100])

    assert "not a whole Parquet file" in failure(path)


def test_a_parquet_file_damaged_inside_is_refused_with_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"a": [f"{n:020}" for n in range(50_000)]})
    pyarrow.parquet.write_table(
        table, path, row_group_size=10_000, compression="zstd", use_dictionary=False
    )
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 2_000] = bytes(2_000)
    path.write_bytes(raw)

    message = failure(path)

    assert "damaged" in message
    assert int(message.split("row ")[1].split(":")[0]) > 1


def test_a_quote_that_never_closes_spoils_its_row_only(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "a.csv", 'a,b\n1,2\n"3,4\n5,6\n'))

    assert [row.line for row in rows] == [2, 3, 4]
    assert "a quote opened in this row never closes" in rows[1].problem
    assert rows[2].values == {"a": "5", "b": "6"}


def test_a_quote_that_closes_in_another_row_spoils_its_row_only(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'a,b\n1,"Heroes\n2,ok\n3,said "hi"\n"4","x ""y"""\n')

    rows = rows_of(path)

    assert [(row.line, row.values) for row in rows] == [
        (2, None),
        (3, {"a": "2", "b": "ok"}),
        (4, {"a": "3", "b": 'said "hi"'}),
        (5, {"a": "4", "b": 'x "y"'}),
    ]


def test_a_record_of_several_lines_with_too_many_fields_swallows_nothing(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "a.csv", 'a,b\n1,"x\n2,y\n3,z",9\n4,w\n'))

    assert [row.values and row.values["a"] for row in rows] == [None, "2", None, "4"]


def test_a_field_that_would_swallow_the_file_spoils_its_row_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MAX_FIELD_CHARS", 100)

    rows = rows_of(written(tmp_path / "a.csv", 'a,b\n1,"2\n' + "3,4\n" * 100))

    assert "never closes" in rows[0].problem
    assert [row.values for row in rows[1:]] == [{"a": "3", "b": "4"}] * 100


def test_a_line_of_a_tsv_is_a_row_whatever_its_quotes(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tsv",
        '"a"\tb\n1\t"Heroes by Bowie\n2\tsaid "hi" twice\n3\t"Weird" Al\n4\tTV 32"\n'
        '"5"\t"said ""hi"", twice"\n6\t"\n7\t""\n\n8\tx\ty\n',
    )

    rows = rows_of(path)

    assert [row.values and row.values["b"] for row in rows] == [
        *('"Heroes by Bowie', 'said "hi" twice', '"Weird" Al', 'TV 32"'),
        *('said "hi", twice', '"', "", None),
    ]
    assert rows[4].values == {"a": "5", "b": 'said "hi", twice'}


def test_an_endless_line_spoils_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_CHARS", 1_000)
    path = written(tmp_path / "a.jsonl", '{"a": 1}\n' + "x" * 12_345 + '\n{"a": 2}\n')

    rows = rows_of(path)

    assert [row.values for row in rows] == [{"a": 1}, None, {"a": 2}]
    assert "longer than 1000 characters" in rows[1].problem


def test_a_broken_first_line_of_a_jsonl_spoils_itself_only(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "a.jsonl", '{"a": 1\n{"a": 2}\n'))

    assert [row.values for row in rows] == [None, {"a": 2}]


def test_json_numbers_of_any_length_are_read_to_the_last_digit(tmp_path: Path) -> None:
    numbers = [2**53 + 1, 2**64 + 1, 123456789012345678901234, 123456789012345678901235]
    path = written(tmp_path / "a.jsonl", "".join(f'{{"a": {number}}}\n' for number in numbers))

    assert values_of(path) == [{"a": number} for number in numbers]


def test_cells_that_python_cannot_hold_spoil_no_others(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    at = pyarrow.array([0, -(10**18), 10**15], "int64").cast(pyarrow.timestamp("us"))
    raw = pyarrow.array([b"x", b"\xff", b"z"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"at": at, "s": raw, "n": [1, 2, 3]}), path)

    first, second, third = values_of(path)

    assert (first["s"], third["s"], third["n"]) == ("x", "z", 3)
    assert isinstance(second["at"], UnreadableCell)
    assert isinstance(second["s"], UnreadableCell)
    assert second["n"] == 2


def test_times_of_96_bits_are_read_whatever_their_century(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    times = [datetime(year, 6, 1) for year in (1, 1440, 2026, 2600, 9999)]
    table = pyarrow.table({"at": pyarrow.array(times, pyarrow.timestamp("us"))})
    pyarrow.parquet.write_table(table, path, use_deprecated_int96_timestamps=True)

    assert values_of(path) == [{"at": time} for time in times]


def test_parquet_is_recognised_by_content_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)

    assert values_of(path) == [{"a": 1}]


def test_columns_of_a_jsonl_are_looked_for_until_they_are_enough(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"b": 1}\nno\n' * 50 + '{"a": 1}\n{"c": 1}\n')

    table = open_table(path, enough=lambda columns: "a" in columns)

    assert table.columns == ("b", "a")
    assert len(list(table.rows)) == 102
    assert open_table(path).columns == ("b", "a", "c")


@pytest.mark.parametrize(
    "number", ["NaN", "1e400", "-Infinity", "9" * 5_000, '"\\ud800"', "[[NaN]]"]
)
def test_a_json_value_that_python_cannot_hold_spoils_no_others(tmp_path: Path, number: str) -> None:
    (row,) = rows_of(written(tmp_path / "a.jsonl", f'{{"a": {number}, "b": 2}}'))

    assert row.values is not None
    assert row.values["b"] == 2


def test_json_numbers_are_exact_within_lists_and_objects(tmp_path: Path) -> None:
    row = {"a": [10**23 + 1, {"b": -(2**63) - 1}], "c": {"d": [[2**64 + 1]]}}
    path = written(tmp_path / "a.jsonl", json.dumps(row))

    assert values_of(path) == [row]


@pytest.mark.parametrize(
    "content",
    [
        '[\n{"a": 1},\n{"a": 2}\n]\n',
        '[{"a": 1},\n{"a": 2}]\n',
        '[\n{"a": 1}\n,{"a": 2}\n]\n',
        '{"n": 2,\n"rows": [\n{"a": 1},\n{"a": 2}]}\n',
        '\n [ \n{"a": 1}\n]\n',
        '{"rows": [\n{"a": 1},\n{"a": 2}\n]}\n',
        '{"n": 2, "rows": [{"a": 1},\n{"a": 2}\n]}\n',
        '[\n{"a": 1},\n' + '{"a": 2},\n' * 50 + '{"a": 3}\n]\n',
        '{\n"a": 1\n}\n',
    ],
)
def test_json_over_many_lines_is_no_jsonl(tmp_path: Path, content: str) -> None:
    said = failure(written(tmp_path / "a.json", content))

    assert "JSON that spans lines" in said
    assert "jq" in said


@pytest.mark.parametrize("first", ["[1]", '{"a": [', '{"a": {', "null", '{"a": 1', '["x'])
def test_a_torn_first_line_of_a_jsonl_ends_no_import(tmp_path: Path, first: str) -> None:
    rows = rows_of(written(tmp_path / "a.jsonl", f'{first}\n{{"a": 2}}\n'))

    assert [row.values for row in rows] == [None, {"a": 2}]


@pytest.mark.parametrize(
    "torn", ["[", "{", '{"a": [', '{"a": {', '{"a": 1,', '{"a": 1},', '{"a": "', "]"]
)
@pytest.mark.parametrize("times", [2, 20, 300])
def test_any_number_of_torn_lines_before_rows_ends_no_import(
    tmp_path: Path, torn: str, times: int
) -> None:
    content = f"{torn}\n" * times + '{"a": 2}\n{"a": 3}\n'
    rows = rows_of(written(tmp_path / "a.jsonl", content))

    assert [row.values for row in rows] == [*[None] * times, {"a": 2}, {"a": 3}]


def test_lines_within_a_quoted_text_may_be_rows_only_if_its_last_is(tmp_path: Path) -> None:
    def within(text: str) -> int:
        (row,) = rows_of(written(tmp_path / "a.csv", f"a,b\n{text}"))
        return len(row.within)

    assert within('1,"6 inch\n2,b\n3,c"\n') == 2
    assert within('1,"a\nb, c\nd"\n') == 0
    assert within('1,"a\nb,c\nd"\n') == 0
    assert within('1,"a\nb, c"\n') == 0


def test_text_that_is_no_jsonl_at_all_is_refused(tmp_path: Path) -> None:
    assert "line 1" in failure(written(tmp_path / "a.jsonl", "a,b\n1,2\n"))
    assert "one JSON object per line" in failure(written(tmp_path / "b.json", "[\n{}\n]\n"))


def test_repeated_columns_are_refused(tmp_path: Path) -> None:
    assert "repeated columns: a" in failure(written(tmp_path / "a.csv", "a,b,a\n1,2,3\n"))


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    assert ".parquet" in failure(written(tmp_path / "a.xlsx", "PK"))
    assert "movielens" in failure(written(tmp_path / "a.dat", "1::2\n"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be opened" in failure(tmp_path / "nowhere.csv")
