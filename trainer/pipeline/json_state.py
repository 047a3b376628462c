"""Small JSON files that a run leaves for the next: replaced whole, durably."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from models.durable import replacing
from models.errors import TrainingError

# The log of a training run: one JSON object per line, which a resumed run continues.


class RunLog:
    """Appends records to a file; each has `kind` and `round`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, kind: str, round_: int, **figures: Any) -> None:
        """Append one record."""
        line = orjson.dumps({"kind": kind, "round": round_, **figures})
        with self._path.open("ab") as file:
            file.write(line + b"\n")

    def records(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """All records, or those of one kind, in order. A line that a kill cut short is left out."""
        if not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                record = orjson.loads(line)
                if kind in (None, record["kind"]):
                    yield record

    def forget_from(self, round_: int) -> None:
        """Drop records of `round_` and later: they are about to be made again."""
        kept = [record for record in self.records() if record["round"] < round_]
        with replacing(self._path) as draft:
            draft.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in kept))


def write(path: Path, value: Any) -> None:
    """Replace the file. Raises TrainingError if the disk does not take it; the old one stands."""
    try:
        with replacing(path) as draft:
            draft.write_bytes(
                orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
            )
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error}; make room, then go on") from error


def read(path: Path) -> Any:
    """What was written; None if nothing was. Raises TrainingError if it cannot be read."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; remove it to begin anew") from error
