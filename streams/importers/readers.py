"""Files → rows, one at a time: CSV, TSV, JSONL, `::`-separated text (each also .gz), Parquet.

No file is ever held whole. Every row of a file comes out: with its values, or with the `problem`
that spoils it. ImportFailed, with the file and the line, is raised where the rest of a file
cannot be read (a truncated archive) or its header or first rows are not what its name says.
"""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Final, NamedTuple

from models.errors import ImportFailed
from streams.importers.lines import Line, read_lines
from streams.importers.parquet import parquet_table
from streams.importers.rows import FileRow, SourceTable
from streams.importers.values import from_json

MAX_FIELD_CHARS = 2_000_000  # twice the longest description that the schema takes
MAX_RECORD_CHARS = 20_000_000
MAX_COLUMNS = 10_000  # of a JSONL file that are remembered

_TEXT_READERS: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".dat")
_PARQUET: Final = b"PAR1"
_HEAD_LINES: Final = 20  # of a file: enough to tell JSON that spans lines from torn rows
_CONTINUES: Final = re.compile(r'\s*[,"\]}].*|.*[,\]]\s*', re.DOTALL)
_NOT_JSON: Final = "not JSON"
_SEPARATORS: Final = ",;\t|"  # the first of equals
# Excel's own first line: "sep=;". It is no header, and what it says is obeyed.
_SEPARATOR_LINE: Final = re.compile(r'\ufeff?("?)sep=(.*)\1', re.IGNORECASE)
_SEPARATOR_AGAIN: Final = (("sep=", ""), ("SEP=", ""))
_QUOTED: Final = re.compile(r'"[^"]*"')
_JSONL: Final = (
    "a JSONL file has one JSON object per line, without commas and brackets around them; "
    "jq -c '.[]' writes a list so"
)


def _never(_: Collection[str]) -> bool:
    return False


Enough = Callable[[Collection[str]], bool]


def open_table(
    path: Path,
    encoding: str | None = None,
    dat_columns: tuple[str, ...] | None = None,
    only: Collection[str] | None = None,
    enough: Enough = _never,
) -> SourceTable:
    """Open `path` by its name and its first bytes. Raises ImportFailed.

    `encoding` None: as a byte order mark says, else latin-1 for .dat and UTF-8 for all others.
    `only`: the columns that are wanted, if reading less saves time. `enough`: whether these
    columns tell how rows are to be read; JSONL, which has no header, is looked through for them.
    """
    size, head = _look_at(path)
    suffix = _inner_suffix(path)
    if suffix == ".parquet" or head == _PARQUET:
        return parquet_table(path, only)
    if suffix not in _TEXT_READERS:
        raise ImportFailed(
            f"{path}: cannot tell what this file is; "
            "name it .csv, .tsv, .jsonl, .dat (each also .gz) or .parquet"
        )
    table = suffix in (".csv", ".tsv")
    otherwise = "latin-1" if suffix == ".dat" else "utf-8"
    ends = "" if table else "\n"  # only tables come from systems that end lines with \r
    json_lines = not table and suffix != ".dat"
    if json_lines:
        _, ahead = read_lines(path, encoding, otherwise, ends)
        dat_columns = _keys(path, ahead, enough)
    file, lines = read_lines(path, encoding, otherwise, ends)
    return _table(suffix, path, lines, partial(_fraction, file, size), dat_columns)


def _fraction(file: IO[bytes], size: int) -> float:
    return 1.0 if file.closed else file.tell() / size


def _look_at(path: Path) -> tuple[int, bytes]:
    try:
        with path.open("rb") as file:
            head = file.read(4)
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImportFailed(f"{path}: cannot be opened: {error}") from error
    if size == 0:
        raise ImportFailed(f"{path}: the file is empty")
    return size, head


def _inner_suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _table(
    suffix: str,
    path: Path,
    lines: Iterator[Line],
    fraction: Callable[[], float],
    columns: tuple[str, ...] | None,
) -> SourceTable:
    if suffix in (".csv", ".tsv"):
        return _separated(path, suffix, lines, fraction)
    if suffix != ".dat":
        return SourceTable(path, columns or (), _jsonl(lines), fraction)
    if columns is None:
        raise ImportFailed(f"{path}: only format movielens knows the columns of .dat files")
    return SourceTable(path, columns, _not_empty(path, _dat(lines, columns)), fraction)


def _not_empty(path: Path, rows: Iterator[FileRow]) -> Iterator[FileRow]:
    first = next(rows, None)
    if first is None:
        raise ImportFailed(f"{path}: the file has no rows")
    return chain((first,), rows)


# --- CSV and TSV -----------------------------------------------------------------------------


class _Record(NamedTuple):
    line: int  # its first
    fields: list[str]
    problem: str = ""
    spanned: tuple[str, ...] = ()  # its further lines


def _separated(
    path: Path, suffix: str, lines: Iterator[Line], fraction: Callable[[], float]
) -> SourceTable:
    first = _first(path, lines)
    delimiter = _declared(path, first)
    if delimiter:
        first = _first(path, lines)
    else:
        delimiter = _shown(suffix, first.text)
    lines = chain((first,), lines)
    records = _tsv(lines) if delimiter == "\t" else _csv(lines, delimiter)
    header = _header(path, next(records))
    rows = _not_empty(path, (_row(record, header, delimiter) for record in records))
    return SourceTable(path, header, rows, fraction, delimiter, first.number)


def _first(path: Path, lines: Iterator[Line]) -> Line:
    first = next(_not_blank(lines), None)
    if first is None:
        raise ImportFailed(f"{path}: the file has no rows")
    return first


def _declared(path: Path, line: Line) -> str:
    """The separator that a line `sep=;` names; "" of any other line. Raises ImportFailed."""
    found = _SEPARATOR_LINE.fullmatch(line.text.rstrip("\r\n"))
    if found is None:
        return ""
    sign = found.group(2)
    if len(sign) != 1 or sign.isalnum() or sign in "\"' ":
        raise ImportFailed(
            f"{path}, line {line.number}: {line.text.strip()[:80]!r} should name the one sign that "
            "separates fields, as sep=; does: mend this line or take it out"
        )
    return sign


def _shown(suffix: str, header: str) -> str:
    """The separator that the header has most often."""
    if suffix == ".tsv" and "\t" in header:
        return "\t"
    return max(_SEPARATORS, key=_QUOTED.sub("", header).count)


def _header(path: Path, record: _Record) -> tuple[str, ...]:
    problem, header = record.problem, _as_header(record.fields)
    if any("\x00" in name for name in header):
        problem = "it has null bytes; if the file is UTF-16, say so with --encoding utf-16"
    if problem:
        raise ImportFailed(f"{path}, line {record.line}: the header cannot be read: {problem}")
    repeated = {name for name in header if name and header.count(name) > 1}
    if repeated:
        raise ImportFailed(
            f"{path}, line {record.line}: repeated columns: {', '.join(sorted(repeated))}"
        )
    return header


def _as_header(fields: Iterable[str]) -> tuple[str, ...]:
    return tuple(field.removeprefix("\ufeff").strip() for field in fields)


def _row(record: _Record, header: tuple[str, ...], delimiter: str) -> FileRow:
    if record.problem:
        return FileRow(record.line, None, record.problem)
    if record.fields[-1].strip() == header[-1] and _as_header(record.fields) == header:
        return FileRow(record.line, None, "the header once more: files were joined")
    if record.fields[-1] == "" and _as_header(record.fields) in _SEPARATOR_AGAIN:
        return FileRow(record.line, None, "a separator's line once more: files were joined")
    values = dict(zip(header, record.fields, strict=True))
    if not record.spanned:
        return FileRow(record.line, values)
    return FileRow(record.line, values, within=tuple(_within(record, header, delimiter)))


def _within(record: _Record, header: tuple[str, ...], delimiter: str) -> Iterator[dict[str, str]]:
    """The further lines of a record that may be rows: then its last, a row too, closes the quote.

    People write a blank after a comma; tables do not.
    """
    split = [text.rstrip("\r\n").split(delimiter) for text in record.spanned]
    if len(split[-1]) != len(header):
        return
    for fields in split:
        blanks = any(field[:1].isspace() for field in fields[1:])
        if len(fields) == len(header) and not blanks:
            yield dict(zip(header, fields, strict=True))


def _wrong_width(fields: Sequence[str], width: int) -> str:
    return "" if len(fields) == width else f"{len(fields)} fields under {width} columns"


def _tsv(lines: Iterable[Line]) -> Iterator[_Record]:
    """A line is a row, whatever quotes are in it."""
    width = 0
    for line in lines:
        text = line.text.rstrip("\r\n")
        if not text and not line.problem:
            continue
        fields = [_unquoted(field) for field in text.split("\t")]
        width = width or len(fields)
        yield _Record(line.number, fields, line.problem or _wrong_width(fields, width))


def _unquoted(field: str) -> str:
    """Without the quotes that spreadsheets and pandas put around a whole field."""
    if field[:1] != '"' or field[-1:] != '"' or len(field) < 2:
        return field
    inner = field[1:-1].replace('""', "\x00")
    return field if '"' in inner else inner.replace("\x00", '"')


def _csv(lines: Iterable[Line], delimiter: str) -> Iterator[_Record]:
    """Fields may be quoted and then hold line ends (RFC 4180).

    Where a record of several lines is none after all, only its first line is refused, and
    reading goes on with its second: a quote that never closes swallows nothing.
    """
    csv.field_size_limit(MAX_FIELD_CHARS)  # of the whole process; the csv module has no other
    source = _Source(iter(lines))
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    width = 0
    while True:
        source.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Record(source.taken[0].number, [], source.problem() or _not_csv(error))
            source.read_again()
            continue
        problem = source.problem()
        if not fields and not problem:
            continue  # a blank line
        width = width or len(fields)
        wrong_width = _wrong_width(fields, width)
        first, *spanned = source.taken
        texts = tuple(line.text for line in spanned)
        yield _Record(first.number, fields, problem or wrong_width, texts)
        if wrong_width:
            source.read_again()


def _not_csv(error: csv.Error) -> str:
    said = str(error)
    if "end of data" in said or "limit" in said:
        return f"a quote opened in this row never closes ({said})"
    return f"not CSV: {said}"


class _Source:
    """Feeds lines to a csv reader; knows which ones the current record has taken."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self._chars = 0
        self.taken: list[Line] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        self._chars += len(line.text)
        if self._chars > MAX_RECORD_CHARS and len(self.taken) > 1:
            raise csv.Error(f"record larger than the limit of {MAX_RECORD_CHARS} characters")
        return line.text

    def begin(self) -> None:
        """The next line is the first of a record."""
        self.taken, self._chars = [], 0

    def problem(self) -> str:
        """What is wrong with the first taken line that is not what was written."""
        return next((line.problem for line in self.taken if line.problem), "")

    def read_again(self) -> None:
        """Give all taken lines but the first once more."""
        self._again.extendleft(reversed(self.taken[1:]))


# --- JSONL and .dat --------------------------------------------------------------------------


def _jsonl(lines: Iterable[Line]) -> Iterator[FileRow]:
    return map(_json_row, _not_blank(lines))


def _not_blank(lines: Iterable[Line]) -> Iterator[Line]:
    return (line for line in lines if line.problem or line.text.strip())


def _json_row(line: Line) -> FileRow:
    if line.problem:
        return FileRow(line.number, None, line.problem)
    try:
        values = from_json(line.text)
    except ValueError as error:
        return FileRow(line.number, None, f"{_NOT_JSON}: {error}")
    if not isinstance(values, dict):
        return FileRow(line.number, None, f"a JSON {type(values).__name__}, not an object")
    return FileRow(line.number, values)


def _keys(path: Path, lines: Iterable[Line], enough: Enough) -> tuple[str, ...]:
    """The keys of the rows until they are enough, of all rows if they never are.

    Raises ImportFailed if no row is a JSON object, or the file is one list of them.
    """
    lines = _not_blank(lines)
    head = list(islice(lines, _HEAD_LINES))
    if not head:
        raise ImportFailed(f"{path}: the file has no rows")
    first = _json_row(head[0])
    if first.problem.startswith(_NOT_JSON) and _spans_lines(*(line.text for line in head)):
        raise ImportFailed(f"{path}, line {first.line}: JSON that spans lines; {_JSONL}")
    keys: dict[str, None] = {}
    objects = False
    for row in map(_json_row, chain(head, lines)):
        objects = objects or row.values is not None
        known = len(keys)
        if known < MAX_COLUMNS:
            keys.update(dict.fromkeys(row.values or ()))
        if len(keys) > known and enough(keys):
            break
    if not objects:
        raise ImportFailed(f"{path}, line {first.line}: {first.problem}; {_JSONL}")
    return tuple(keys)


def _spans_lines(first: str, *others: str) -> bool:
    """Whether lines that are no rows by themselves are the beginning of one JSON value."""
    written = "".join((first, *others)).rstrip()
    try:
        json.loads(written)
    except json.JSONDecodeError as error:
        if error.pos < len(written):
            return False
    except (ValueError, RecursionError):
        return False
    return any(map(_CONTINUES.fullmatch, others))


def _dat(lines: Iterable[Line], columns: tuple[str, ...]) -> Iterator[FileRow]:
    for line in lines:
        fields = line.text.rstrip("\r\n").split("::")
        problem = line.problem or _wrong_width(fields, len(columns))
        if line.problem or line.text.strip():
            values = None if problem else dict(zip(columns, fields, strict=True))
            yield FileRow(line.number, values, problem)
