"""VectorIndex on LanceDB: one table per name, one writer, many readers.

A removed row stays as a tombstone (no text, a zero vector) until `optimize` finds it older
than TOMBSTONE_S, so that readers who ask for what is newer learn of the removal.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import lancedb
import numpy as np
import orjson
import pyarrow as pa
from filelock import FileLock, Timeout
from lancedb.index import HnswSq

from models.errors import VectorIndexError, VectorIndexUnavailable
from models.identity import digest
from models.machine_faults import remedy
from models.ports import VectorRow, Vectors

TOMBSTONE_S: Final = 3600.0
MOST_CHARS: Final = 200  # of a folder's name; file systems allow 255 with what is added
_SPARE: Final = 32  # rows fetched beyond k, so that ties at the end are settled by id
_METADATA: Final = ("id", "text", "sequence", "attributes")
_SOURCE: Final = re.compile(r", /\S+\.rs:\d+:\d+")  # where in LanceDB's source an error was made

F = TypeVar("F", bound=Callable[..., Any])


def _explained(method: F) -> F:
    """What LanceDB raises, as an error that says which table, where it lies and what to do."""

    @wraps(method)
    def explained(index: LanceIndex, table: str, *args: Any) -> Any:
        try:
            return method(index, table, *args)
        except (RuntimeError, OSError) as error:
            raise index.explained(table, error) from error

    return cast(F, explained)


class LanceIndex:
    """See VectorIndex. `writer=True` takes the lock that keeps a second writer out.

    `uri` is a folder or an object-store URI; for the latter `lock` names a local file, which
    keeps writers of one machine apart.
    """

    def __init__(
        self,
        uri: str,
        *,
        writer: bool = False,
        lock: Path | None = None,
        keep_versions_s: float = 600.0,
        approximate_above: int = 100_000,
    ) -> None:
        """Tables of more rows than `approximate_above` get a vector index when optimized.

        Raises VectorIndexError when another writer holds the lock.
        """
        self._keep_versions = timedelta(seconds=keep_versions_s)
        self._approximate_above = approximate_above
        self._lock = _take_lock(uri, lock) if writer else None
        # Zero: every read looks for the newest version, also of other processes.
        self._database = lancedb.connect(uri, read_consistency_interval=timedelta(0))
        self._sequences: dict[str, int] = {}  # last one written, by table

    def close(self) -> None:
        """Let the next writer in."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @_explained
    def upsert(self, table: str, rows: Sequence[VectorRow]) -> None:
        """Insert or replace by id, in one version. The rows' own `sequence` is not used.

        Raises VectorIndexError for another dimension, or without the writer's lock.
        """
        if not rows:
            return
        newest = list({row.id: row for row in rows}.values())
        vectors = np.stack([row.vector for row in newest])
        opened = self._writable(table, vectors.shape[1])
        attributes = [dict(row.attributes) for row in newest]
        self._merge(table, opened, newest, vectors, attributes, removed=False)

    @_explained
    def remove(self, table: str, ids: Sequence[str]) -> None:
        """Replace by tombstones; unknown ids are ignored."""
        self._require_lock()
        known = self.ids(table).intersection(ids)
        opened = self._table(table)
        if not known or opened is None:
            return
        vectors = np.zeros((len(known), _dimension(opened)), np.float32)
        rows = [VectorRow(item_id, vectors[0], "", 0, {}) for item_id in sorted(known)]
        attributes = [{"removed": True} for _ in rows]
        self._merge(table, opened, rows, vectors, attributes, removed=True)

    def _merge(
        self,
        table: str,
        opened: Any,
        rows: Sequence[VectorRow],
        vectors: Vectors,
        attributes: Sequence[Mapping[str, Any]],
        *,
        removed: bool,
    ) -> None:
        sequence = self._next_sequence(table, opened)
        batch = pa.table(
            {
                "id": [row.id for row in rows],
                "vector": _fixed_size(vectors),
                "text": [row.text for row in rows],
                "sequence": [sequence] * len(rows),
                "attributes": [orjson.dumps(found).decode() for found in attributes],
                "removed": [removed] * len(rows),
            },
            schema=_schema(vectors.shape[1]),
        )
        merge = opened.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(batch)
        self._sequences[table] = sequence

    def _next_sequence(self, table: str, opened: Any) -> int:
        """Microseconds of wall time, or one more than the last: a rebuilt table goes on above."""
        if table not in self._sequences:
            stored = opened.search().select(["sequence"]).to_arrow()["sequence"].to_pylist()
            self._sequences[table] = max(stored, default=0)
        return max(time.time_ns() // 1000, self._sequences[table] + 1)

    @_explained
    def newer_than(self, table: str, sequence: int) -> list[VectorRow]:
        """All rows written after `sequence` (-1: all), by sequence and id, tombstones too."""
        opened = self._table(table)
        if opened is None:
            return []
        # The filter is left out for a first read: then the whole table is one plain scan.
        query = opened.search() if sequence < 0 else opened.search().where(f"sequence > {sequence}")
        return _rows(query.select([*_METADATA, "vector"]).to_arrow())

    @_explained
    def get(self, table: str, ids: Sequence[str]) -> dict[str, VectorRow]:
        """The rows of these ids that are in the table; no tombstones."""
        opened = self._table(table)
        if opened is None or not ids:
            return {}
        listed = ", ".join("'" + item_id.replace("'", "''") + "'" for item_id in set(ids))
        query = opened.search().where(f"NOT removed AND id IN ({listed})")
        return {row.id: row for row in _rows(query.select([*_METADATA, "vector"]).to_arrow())}

    @_explained
    def ids(self, table: str) -> set[str]:
        """Ids now in the table; empty if there is no such table."""
        opened = self._table(table)
        if opened is None:
            return set()
        return set(opened.search().where("NOT removed").select(["id"]).to_arrow()["id"].to_pylist())

    @_explained
    def search(self, table: str, vectors: Vectors, k: int) -> list[list[tuple[str, float]]]:
        """Per query row the k nearest (id, cosine similarity), best first, ties by id."""
        opened = self._table(table)
        if opened is None or not len(vectors):
            return [[] for _ in vectors]
        query = opened.search(np.asarray(vectors, np.float32)).distance_type("dot")
        found = (
            query.where("NOT removed", prefilter=True).limit(k + _SPARE).select(["id", "_distance"])
        )
        return _by_query(found.to_arrow(), len(vectors), k)

    @_explained
    def version(self, table: str) -> int:
        """Grows with every change of the table; 0 if there is none."""
        opened = self._table(table)
        return 0 if opened is None else int(opened.version)

    @_explained
    def optimize(self, table: str) -> None:
        """Drop old tombstones, merge small fragments, drop versions past the retention."""
        self._require_lock()
        opened = self._table(table)
        if opened is None:
            return
        oldest = int((time.time() - TOMBSTONE_S) * 1_000_000)
        opened.delete(f"removed AND sequence < {oldest}")
        if opened.count_rows() > self._approximate_above and not opened.list_indices():
            opened.create_index("vector", config=HnswSq(distance_type="dot"))
        opened.optimize(cleanup_older_than=self._keep_versions, delete_unverified=False)

    @_explained
    def drop(self, table: str) -> None:
        """Remove the whole table, damaged or not; unknown names are ignored."""
        self._require_lock()
        self._database.drop_table(_file_name(table), ignore_missing=True)
        self._sequences.pop(table, None)

    @_explained
    def verify(self, table: str) -> None:
        """Read a little of every file of the table. Raises VectorIndexError if it is damaged."""
        # Through a connection of its own: this one answers from what it has read before.
        opened = self._opened(lancedb.connect(self._database.uri), table)
        if opened is not None:
            opened.search().select(["sequence"]).to_arrow()

    def explained(self, table: str, error: Exception) -> VectorIndexError:
        """`error` of LanceDB in words that help."""
        place = f"table {table!r} of the vector index ({self._database.uri}/{_file_name(table)}"
        what = f"{place}.lance): {_SOURCE.sub('', str(error))}"
        advice = remedy(error)
        if advice:
            return VectorIndexUnavailable(f"{what}; {advice}")
        return VectorIndexError(
            f"{what}; it is damaged. The indexer makes it anew from its topic when it is started "
            "again; so does `palate rebuild-index`"
        )

    def _require_lock(self) -> None:
        if self._lock is None:
            raise VectorIndexError(
                f"the vector index at {self._database.uri} was opened for reading; "
                "only the indexer writes to it"
            )

    def _writable(self, table: str, dimension: int) -> Any:
        self._require_lock()
        opened = self._table(table)
        if opened is None:
            opened = self._database.create_table(_file_name(table), schema=_schema(dimension))
        if _dimension(opened) != dimension:
            raise VectorIndexError(
                f"table {table!r} holds vectors of {_dimension(opened)} dimensions, not "
                f"{dimension}: another embedder needs another release"
            )
        return opened

    def _table(self, table: str) -> Any | None:
        # Opened anew each time: a table may have been dropped and made again by the writer.
        return self._opened(self._database, table)

    @staticmethod
    def _opened(database: Any, table: str) -> Any | None:
        try:
            return database.open_table(_file_name(table))
        except ValueError as error:
            if "was not found" not in str(error):
                raise VectorIndexError(f"table {table!r} cannot be opened: {error}") from error
            return None


def _take_lock(uri: str, lock: Path | None) -> FileLock:
    path = lock or Path(uri) / ".writer.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise VectorIndexError(
            f"another process writes to the vector index at {uri} (lock {path}); "
            "stop it first: two writers can duplicate rows"
        ) from error
    return held


def _file_name(table: str) -> str:
    """LanceDB allows letters, digits, '_', '-' and '.'; '@' becomes '.', others their code.

    A name that is too long for a folder is cut, and told apart by a hash of the whole.
    """
    escaped = re.sub(r"[^A-Za-z0-9@-]", lambda match: f"_{ord(match[0]):x}_", table)
    name = escaped.replace("@", ".")
    if len(name) <= MOST_CHARS:
        return name
    return f"{name[:MOST_CHARS]}_{digest(table)}"


def _schema(dimension: int) -> pa.Schema:
    return pa.schema(
        [
            ("id", pa.string()),
            ("vector", pa.list_(pa.float32(), dimension)),
            ("text", pa.string()),
            ("sequence", pa.int64()),
            ("attributes", pa.string()),
            ("removed", pa.bool_()),
        ]
    )


def _fixed_size(vectors: Vectors) -> pa.FixedSizeListArray:
    flat = np.ascontiguousarray(vectors, np.float32).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors.shape[1])


def _dimension(opened: Any) -> int:
    return int(opened.schema.field("vector").type.list_size)


def _rows(found: pa.Table) -> list[VectorRow]:
    dimension = found.schema.field("vector").type.list_size
    vectors = found["vector"].combine_chunks()
    matrix = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(found), dimension)
    metadata = found.select(_METADATA).to_pylist()
    rows = [
        VectorRow(row["id"], vector, row["text"], row["sequence"], orjson.loads(row["attributes"]))
        for row, vector in zip(metadata, matrix, strict=True)
    ]
    return sorted(rows, key=lambda row: (row.sequence, row.id))


def _by_query(found: pa.Table, queries: int, k: int) -> list[list[tuple[str, float]]]:
    nearest: list[list[tuple[str, float]]] = [[] for _ in range(queries)]
    batched = "query_index" in found.column_names  # LanceDB leaves it out for one query
    numbers = found["query_index"].to_pylist() if batched else [0] * len(found)
    ids, distances = found["id"].to_pylist(), found["_distance"].to_pylist()
    for number, item_id, distance in zip(numbers, ids, distances, strict=True):
        nearest[number].append((item_id, round(1.0 - distance, 6)))
    return [sorted(one, key=lambda pair: (-pair[1], pair[0]))[:k] for one in nearest]
