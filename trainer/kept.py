"""Small JSON files that a run leaves for the next: replaced whole, durably."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import orjson

from models.errors import TrainingError


def write(path: Path, value: Any) -> None:
    """Replace the file. Raises TrainingError if the disk does not take it; the old one stands."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as draft:
            draft.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
            draft.flush()
            os.fsync(draft.fileno())
        Path(draft.name).replace(path)
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
