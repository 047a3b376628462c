"""Writes that are there whole or not at all, and a lock between processes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from models import durable
from models.errors import EventLogError

LOCK_TIMEOUT_S: Final = 60.0  # an append holds the lock for well under a second

_REMEDIES: Final = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the quota of the disk is used up: make room",
    errno.ENOENT: "its folder was deleted or unmounted: bring it back",
    errno.ENOTDIR: "a file stands where its folder should be: move it away",
    errno.EROFS: "the disk is mounted for reading only: mount it for writing",
    errno.EACCES: "this user may not write there: give it the right",
    errno.EPERM: "this user may not write there: give it the right",
    errno.EIO: "the disk reports an error: replace it",
}


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `final`, durably, when the block ends.

    Readers see the old file or the new. Raises EventLogError if the disk does not take it.
    """
    try:
        with durable.replacing(final) as draft:
            yield draft
    except OSError as error:
        raise not_written(final, error) from error


def not_written(path: Path, error: OSError) -> EventLogError:
    """What to say of a write that failed: a full disk is not a folder that is gone."""
    remedy = _REMEDIES.get(error.errno or 0, "see what the disk has")
    return EventLogError(
        f"cannot write {path}: {error.strerror or error}; {remedy}, then start the recorder again. "
        "Nothing is lost: it resumes where the manifests end"
    )


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
        raise not_written(folder, error) from error
    try:
        yield
    finally:
        lock.release()
