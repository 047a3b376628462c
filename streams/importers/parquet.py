"""Parquet files → rows, in batches. One cell that Python cannot hold spoils no other."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from models.errors import ImportFailed
from streams.importers.rows import FileRow, ShortFloat, SourceTable, UnreadableCell

PARQUET_BATCH = 2048

# What pyarrow raises for bytes that are no Parquet (its own errors are among these), and
# as_py() for cells beyond Python's types: times before year 1, unknown time zones.
_UNREADABLE: Final = (
    *(OSError, ArithmeticError, LookupError, MemoryError, NotImplementedError, TypeError),
    ValueError,
)


def parquet_table(path: Path, only: Collection[str] | None = None) -> SourceTable:
    """Open a Parquet file; with `only`, rows have just these columns. Raises ImportFailed."""
    import pyarrow.parquet

    try:
        # Times of 96 bits reach beyond what 64 bits of nanoseconds hold: 2600 would become 2015.
        file = pyarrow.parquet.ParquetFile(path, coerce_int96_timestamp_unit="us")
        total, columns = file.metadata.num_rows, tuple(file.schema_arrow.names)
    except (pyarrow.ArrowException, *_UNREADABLE) as error:
        raise ImportFailed(
            f"{path}: not a whole Parquet file ({_first_line(error)}); fetch it again"
        ) from error
    if total == 0:
        raise ImportFailed(f"{path}: the file has no rows")
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise ImportFailed(f"{path}: repeated columns: {', '.join(sorted(repeated))}")
    read = [0]  # shared with `fraction`
    wanted = None if only is None else [name for name in columns if name in only]
    rows = _rows(path, file, wanted, read)
    return SourceTable(path, columns, rows, lambda: read[0] / total)


def _rows(path: Path, file: Any, columns: list[str] | None, read: list[int]) -> Iterator[FileRow]:
    batches = _batches(path, file, columns, read)
    for batch in batches:
        short = [field.name for field in batch.schema if _is_short(field.type)]
        for record in _records(batch):
            read[0] += 1
            for name in short:
                if record[name] is not None:
                    record[name] = ShortFloat(record[name])
            yield FileRow(read[0], record)
    if read[0] != file.metadata.num_rows:
        raise ImportFailed(
            f"{path}: has {read[0]} rows of the {file.metadata.num_rows} that it says it has; it "
            "is damaged: fetch it again"
        )


def _is_short(kind: Any) -> bool:
    """Whether a column's numbers were rounded to 16 or 32 bits; Python's have 64."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_float16(kind) or types.is_float32(kind))


def _batches(path: Path, file: Any, columns: list[str] | None, read: list[int]) -> Iterator[Any]:
    import pyarrow

    try:
        for batch in file.iter_batches(batch_size=PARQUET_BATCH, columns=columns):
            batch.validate()
            yield _with_plain_times(batch)
    except (pyarrow.ArrowException, *_UNREADABLE) as error:
        raise ImportFailed(
            f"{path}, row {read[0] + 1}: cannot be read further ({_first_line(error)}); the file "
            "is damaged: fetch it again"
        ) from error


def _records(batch: Any) -> list[dict[str, Any]]:
    import pyarrow

    try:
        return list(batch.to_pylist())
    except (pyarrow.ArrowException, *_UNREADABLE):
        columns = {name: batch.column(n) for n, name in enumerate(batch.schema.names)}
        return [
            {name: _cell(column[row]) for name, column in columns.items()}
            for row in range(batch.num_rows)
        ]


def _cell(scalar: Any) -> Any:
    import pyarrow

    try:
        return scalar.as_py()
    except (pyarrow.ArrowException, *_UNREADABLE):
        return UnreadableCell(f"a {scalar.type} that cannot be read")


def _with_plain_times(batch: Any) -> Any:
    """Nanosecond times become microseconds, which Python's datetime can hold."""
    import pyarrow

    for index, field in enumerate(batch.schema):
        if pyarrow.types.is_timestamp(field.type) and field.type.unit == "ns":
            kind = pyarrow.timestamp("us", field.type.tz)
            batch = batch.set_column(index, field.name, batch.column(index).cast(kind, safe=False))
    return batch


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
