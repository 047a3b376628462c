"""Writes that are there whole or not at all, and a lock between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from models.errors import EventLogError

LOCK_TIMEOUT_S: Final = 60.0  # an append holds the lock for well under a second


def publish(written: Path, final: Path) -> None:
    """Make a written file durable, then visible under its final name."""
    _sync(written)
    os.replace(written, final)  # noqa: PTH105 (os.replace is what tests of crashes intercept)
    _sync(final.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file's content; readers see the old or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    publish(temporary, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Only one process at a time changes what is in `folder`; freed when the process dies."""
    try:
        with FileLock(folder / ".lock", timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout:
        raise EventLogError(
            f"{folder} has been locked by another process for {LOCK_TIMEOUT_S:.0f} s; "
            "end the recorder that hangs (two may run, but not stand still while writing)"
        ) from None
