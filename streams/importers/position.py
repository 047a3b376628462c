"""How far into a file an import has come, kept on disk so that it can be resumed."""

from __future__ import annotations

import re
from pathlib import Path

import orjson

from models.durable import replacing
from models.errors import ImportFailed
from models.identity import digest
from streams.importers.report import printable


class PositionFile:
    """The row up to which the broker has acknowledged every usable row of one file.

    A file that has changed since is another import.
    """

    def __init__(self, folder: Path, source: Path, *identity: str) -> None:
        """`identity`: how it is read, and which topic on which cluster it goes to."""
        state = source.stat()
        resolved = printable(str(source.resolve()))
        name = digest(resolved, state.st_size, state.st_mtime_ns, identity, chars=16)
        stem = re.sub(r"[^\w.-]", "_", source.name)[:80]
        self.path = folder / f"{stem}-{name}.json"
        self._source = resolved

    def load(self) -> int:
        """The saved row, 0 for none. Raises ImportFailed if it cannot be read."""
        if not self.path.exists():
            return 0
        try:
            return int(orjson.loads(self.path.read_bytes())["row"])
        except (OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ImportFailed(
                f"{self.path}: the saved position cannot be read ({error}); "
                "start the file anew with --restart"
            ) from error

    def forget(self) -> None:
        """Begin at the first row next time."""
        self.path.unlink(missing_ok=True)

    def save(self, row: int) -> None:
        """Replace the saved row, durably."""
        with replacing(self.path) as draft:
            draft.write_bytes(orjson.dumps({"row": row, "file": self._source}))
