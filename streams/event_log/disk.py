"""Writes that are there whole or not at all, and a lock between processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from models import durable
from models.errors import EventLogError

LOCK_TIMEOUT_S: Final = 60.0  # an append holds the lock for well under a second


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `final`, durably, when the block ends.

    Readers see the old file or the new. Raises EventLogError if the disk does not take it.
    """
    try:
        with durable.replacing(final) as draft:
            yield draft
    except OSError as error:
        raise EventLogError(
            f"cannot write {final}: {error}; nothing is lost: with room to write, the recorder "
            "goes on from the manifests"
        ) from error


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Only one process at a time changes what is in `folder`; freed when the process dies."""
    lock = FileLock(folder / ".lock", timeout=LOCK_TIMEOUT_S)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise EventLogError(
            f"{folder} has been locked by another process for {LOCK_TIMEOUT_S:.0f} s; "
            "end the recorder that hangs (two may run, but not stand still while writing)"
        ) from None
    except OSError as error:
        raise EventLogError(f"cannot write to {folder}: {error}") from error
    try:
        yield
    finally:
        lock.release()
