"""Files and folders that are there whole or not at all, whatever kills the process meanwhile.

What is written lies beside its place under another name, is flushed to the disk, and takes the
place by one rename. OSErrors are the caller's: only it knows what is lost and what to do.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `final` when the block ends.

    Readers see the old file or the new. If the block raises, the old one stands.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = final.with_name(f".{final.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield draft
        flush(draft)
        os.replace(draft, final)  # noqa: PTH105 (tests of crashes intercept os.replace)
        flush(final.parent)
    except Exception:
        draft.unlink(missing_ok=True)  # it may be what fills the disk
        raise


@contextmanager
def making(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder that becomes `final` when the block ends; if the block raises, nothing does.

    `final` must not exist yet, unless `replace`: then the new folder takes its place. Folders have
    no rename that does so in one step, so a kill between removal and rename leaves neither.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        yield draft
        draft.chmod(0o755)
        for path in (draft, *draft.rglob("*")):
            flush(path)
        if replace:
            shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        flush(final.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def flush(path: Path) -> None:
    """Make a file, or a folder's list of names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
