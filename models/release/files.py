"""The files of a release folder: copied, made durable, hashed. No meaning is known here."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from models.durable import flush
from models.errors import ReleaseError

MANIFEST: Final = "manifest.json"


def sources(files: Mapping[str, Path]) -> dict[str, Path]:
    """Relative path → file, with folders among `files` taken apart.

    Raises ReleaseError for what is not there, is empty, or would lie outside the folder.
    """
    found: dict[str, Path] = {}
    for relative, source in files.items():
        _check_name(relative)
        within = dict(_within(relative, source))
        if not within:
            raise ReleaseError(f"{relative!r} cannot be released: {source} is no file with content")
        found |= within
    return found


def _within(relative: str, source: Path) -> Iterator[tuple[str, Path]]:
    if source.is_file():
        yield relative, source
    elif source.is_dir():
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            yield f"{relative}/{path.relative_to(source).as_posix()}", path


def _check_name(relative: str) -> None:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or str(path) in (".", MANIFEST):
        raise ReleaseError(f"{relative!r} cannot be a path inside a release folder")


def copy(files: Mapping[str, Path], folder: Path) -> None:
    """Copy relative path → source into `folder`, flushed to the disk."""
    for relative, source in files.items():
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        flush(target)
    for inner in {(folder / relative).parent for relative in files}:
        flush(inner)


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """Relative path → sha256, by path."""
    return {relative: file_hash(files[relative]) for relative in sorted(files)}


def file_hash(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed(expected: Mapping[str, str], folder: Path) -> list[str]:
    """Relative paths whose file is gone or does not have the hash that `expected` names."""
    return [
        relative
        for relative, known in expected.items()
        if not (folder / relative).is_file() or file_hash(folder / relative) != known
    ]
