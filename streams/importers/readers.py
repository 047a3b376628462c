"""Files → rows, one at a time: CSV, JSONL and `::`-separated text (each also gzipped), Parquet.

No file is ever held whole. What makes the rest of a file unreadable (a wrong byte, a truncated
archive, a quote that never closes) raises ImportFailed with the file and the line; what spoils
one row only is a Row with a `problem`.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, cast

import orjson

from models.errors import ImportFailed
from streams.importers.rows import Row, Table

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_FIELD_CHARS = 2_000_000  # twice the longest description that the schema takes
PEEKED_ROWS = 20  # JSONL has no header: its columns are those of its first rows
PARQUET_BATCH = 2048

_GZIP = b"\x1f\x8b"
_TEXT_READERS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".dat")


def open_table(
    path: Path,
    encoding: str = "utf-8",
    dat_encoding: str = "latin-1",
    dat_columns: tuple[str, ...] | None = None,
) -> Table:
    """Open `path` by its name (and its first bytes). Raises ImportFailed."""
    size, head = _look_at(path)
    suffix = _inner_suffix(path)
    if suffix == ".parquet":
        return _parquet(path)
    if suffix not in _TEXT_READERS:
        raise ImportFailed(
            f"{path}: cannot tell what this file is; "
            "name it .csv, .tsv, .jsonl, .dat (each also .gz) or .parquet"
        )
    file = path.open("rb")
    lines = _lines(
        path, file, _unzipped(path, file, head), dat_encoding if suffix == ".dat" else encoding
    )
    columns, rows = _rows_of(suffix, path, lines, dat_columns)
    return Table(path, columns, rows, lambda: 1.0 if file.closed else file.tell() / size)


def _look_at(path: Path) -> tuple[int, bytes]:
    try:
        with path.open("rb") as file:
            head = file.read(4)
        size = path.stat().st_size
    except OSError as error:
        raise ImportFailed(f"{path}: cannot be opened: {error.strerror}") from error
    if size == 0:
        raise ImportFailed(f"{path}: the file is empty")
    return size, head


def _inner_suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _unzipped(path: Path, file: IO[bytes], head: bytes) -> IO[bytes]:
    if head.startswith(_GZIP):
        return cast(IO[bytes], gzip.open(file))
    if path.suffix.lower() == ".gz":
        file.close()
        raise ImportFailed(f"{path}: named .gz, but it is not a gzip file")
    return file


def _lines(path: Path, file: IO[bytes], stream: IO[bytes], encoding: str) -> Iterator[str]:
    """Decoded lines with their line ends; every error names its line."""
    line = 0
    with file, stream:  # closing a gzip stream leaves its file open
        while True:
            line += 1
            try:
                raw = stream.readline(MAX_LINE_BYTES + 1)
            except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
                raise ImportFailed(
                    f"{path}, line {line}: the file cannot be read further ({error}); "
                    "it is truncated or damaged: fetch it again"
                ) from error
            if not raw:
                return
            if len(raw) > MAX_LINE_BYTES:
                raise ImportFailed(f"{path}, line {line}: longer than {MAX_LINE_BYTES} bytes")
            yield _decoded(path, line, raw, encoding)


def _decoded(path: Path, line: int, raw: bytes, encoding: str) -> str:
    try:
        decoded = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise ImportFailed(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} at column {error.start + 1} is "
            f"not {encoding}; name the file's encoding (for example --encoding latin-1) "
            "or save it in one encoding"
        ) from error
    except LookupError as error:
        raise ImportFailed(f"{path}: there is no encoding called {encoding!r}") from error
    return decoded.removeprefix("\ufeff") if line == 1 else decoded


def _rows_of(
    suffix: str, path: Path, lines: Iterator[str], dat_columns: tuple[str, ...] | None
) -> tuple[tuple[str, ...], Iterator[Row]]:
    if suffix in (".csv", ".tsv"):
        return _csv(path, lines)
    if suffix != ".dat":
        return _jsonl(path, lines)
    if dat_columns is None:
        raise ImportFailed(f"{path}: only format movielens knows the columns of .dat files")
    return dat_columns, _not_empty(path, _dat(lines, dat_columns))


def _not_empty(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        raise ImportFailed(f"{path}: the file has no rows")
    return chain((first,), rows)


def _csv(path: Path, lines: Iterator[str]) -> tuple[tuple[str, ...], Iterator[Row]]:
    first = next(lines, "")
    delimiter = max(",;\t", key=first.count)
    csv.field_size_limit(MAX_FIELD_CHARS)  # of the whole process; the csv module has no other
    reader = csv.reader(chain((first,), lines), delimiter=delimiter, strict=True)
    try:
        header = tuple(name.strip() for name in next(reader, []))
    except csv.Error as error:
        raise ImportFailed(f"{path}, line 1: the header cannot be read: {error}") from error
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise ImportFailed(f"{path}, line 1: repeated columns: {', '.join(sorted(repeated))}")
    return header, _not_empty(path, _csv_rows(path, reader, header))


def _csv_rows(path: Path, reader: Any, header: tuple[str, ...]) -> Iterator[Row]:
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error) or "end of data" in str(error):
                raise ImportFailed(
                    f"{path}, line {line}: a quote opened in this row never closes ({error})"
                ) from error
            yield Row(line, None, f"not CSV: {error}")
            continue
        if len(fields) == len(header):
            yield Row(line, dict(zip(header, fields, strict=True)))
        elif fields:
            yield Row(line, None, f"{len(fields)} fields under {len(header)} columns")


def _jsonl(path: Path, lines: Iterator[str]) -> tuple[tuple[str, ...], Iterator[Row]]:
    rows = _jsonl_rows(lines)
    peeked = list(islice(rows, PEEKED_ROWS))
    if not peeked:
        raise ImportFailed(f"{path}: the file has no rows")
    if peeked[0].values is None:
        raise ImportFailed(
            f"{path}, line {peeked[0].line}: {peeked[0].problem}; "
            "a JSONL file has one JSON object per line"
        )
    columns = dict.fromkeys(name for row in peeked for name in row.values or ())
    return tuple(columns), chain(peeked, rows)


def _jsonl_rows(lines: Iterator[str]) -> Iterator[Row]:
    for line, content in enumerate(lines, start=1):
        if not content.strip():
            continue
        try:
            values = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            yield Row(line, None, f"not JSON: {error}")
            continue
        if isinstance(values, dict):
            yield Row(line, values)
        else:
            yield Row(line, None, f"a JSON {type(values).__name__}, not an object")


def _dat(lines: Iterator[str], columns: tuple[str, ...]) -> Iterator[Row]:
    for line, content in enumerate(lines, start=1):
        fields = content.rstrip("\r\n").split("::")
        if len(fields) == len(columns):
            yield Row(line, dict(zip(columns, fields, strict=True)))
        elif content.strip():
            yield Row(line, None, f"{len(fields)} fields under {len(columns)} columns")


def _parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ImportFailed(
            f"{path}: not a whole Parquet file ({str(error).splitlines()[0]}); fetch it again"
        ) from error
    total = file.metadata.num_rows
    if total == 0:
        raise ImportFailed(f"{path}: the file has no rows")
    read = [0]  # shared with `fraction`
    return Table(
        path,
        tuple(file.schema_arrow.names),
        _parquet_rows(path, file, read),
        lambda: read[0] / total,
    )


def _parquet_rows(path: Path, file: Any, read: list[int]) -> Iterator[Row]:
    import pyarrow

    batches = file.iter_batches(batch_size=PARQUET_BATCH)
    while True:
        try:
            batch = next(batches, None)
            records = [] if batch is None else _with_plain_times(batch).to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ImportFailed(
                f"{path}, row {read[0] + 1}: cannot be read further "
                f"({str(error).splitlines()[0]}); the file is damaged: fetch it again"
            ) from error
        if batch is None:
            return
        for record in records:
            read[0] += 1
            yield Row(read[0], record)


def _with_plain_times(batch: Any) -> Any:
    """Nanosecond times become microseconds, which Python's datetime can hold."""
    import pyarrow

    for index, field in enumerate(batch.schema):
        if pyarrow.types.is_timestamp(field.type) and field.type.unit == "ns":
            kind = pyarrow.timestamp("us", field.type.tz)
            batch = batch.set_column(index, field.name, batch.column(index).cast(kind, safe=False))
    return batch
