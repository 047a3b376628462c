"""Small JSON files that a run leaves for the next: replaced whole, durably."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from models.durable import replacing
from models.errors import TrainingError


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
