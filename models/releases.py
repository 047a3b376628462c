"""Release folders: written once, never changed, and checked at every load."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import orjson

from models.errors import ReleaseError
from models.identity import digest
from models.ports import Release
from models.prompts import PROMPT_VERSION
from models.schemas import to_rfc3339
from models.settings import Settings

BASE_RELEASE: Final = "base-0"  # made at first start: the models as they come
_MANIFEST: Final = "manifest.json"


def items_table(release_id: str) -> str:
    """Name of a release's table of item vectors."""
    return f"items@{release_id}"


def profiles_table(release_id: str) -> str:
    """Name of a release's table of profile vectors."""
    return f"profiles@{release_id}"


def base_release(settings: Settings, created_at_ms: int, weights: Sequence[Path] = ()) -> Release:
    """The release of an untrained system: the configured models, no adapter.

    `weights` are the files whose sha256 goes into the manifest.
    """
    return sealed(
        Release(
            id=BASE_RELEASE,
            base_model=settings.profile.model,
            adapter=None,
            embedder=settings.embedder.model,
            prompt_version=PROMPT_VERSION,
            window_spec=settings.windows.model_dump(mode="json"),
            created_at=to_rfc3339(created_at_ms),
            metrics={},
            hashes={path.name: _sha256(path) for path in weights},
        )
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(release: Release) -> Release:
    """The release with the hash of everything else in it."""
    content = asdict(release)
    content.pop("manifest_sha256")
    return replace(release, manifest_sha256=digest(content, chars=64))


class FolderReleaseStore:
    """ReleaseStore in a folder: one sub-folder per release, with its manifest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def publish(self, release: Release) -> Release:
        """Write the folder under another name, then rename it; the same content twice is fine.

        Raises ReleaseError if the id exists with other content.
        """
        published = sealed(release)
        path = self._path(release.id)
        if path.exists():
            return self._same(published)
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self._folder))
        try:
            _write_manifest(published, draft / _MANIFEST)
            draft.rename(path)
        except OSError:
            if not path.exists():
                raise
            return self._same(published)  # another process was first
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return published

    def _same(self, published: Release) -> Release:
        known = self.get(published.id)
        if known != published:
            raise ReleaseError(
                f"release {published.id!r} exists in {self._folder} with other content; "
                "releases never change: publish under a new id"
            )
        return known

    def get(self, release_id: str) -> Release:
        """Raises ReleaseError if unknown or changed since it was published."""
        path = self._path(release_id) / _MANIFEST
        try:
            release = Release(**orjson.loads(path.read_bytes()))
        except FileNotFoundError as error:
            raise ReleaseError(f"there is no release {release_id!r} in {self._folder}") from error
        except (orjson.JSONDecodeError, TypeError) as error:
            raise ReleaseError(f"{path} is not a release manifest: {error}") from error
        if release.id != release_id or sealed(release) != release:
            raise ReleaseError(f"{path} was changed after it was published; restore it")
        return release

    def ids(self) -> list[str]:
        """All published ids, oldest first."""
        found = [self.get(path.parent.name) for path in self._folder.glob(f"*/{_MANIFEST}")]
        published = [release for release in found if not release.id.startswith(".")]
        return [found.id for found in sorted(published, key=lambda one: (one.created_at, one.id))]

    def _path(self, release_id: str) -> Path:
        if release_id.startswith(".") or Path(release_id).name != release_id:
            raise ReleaseError(f"{release_id!r} cannot be the name of a release folder")
        return self._folder / release_id


def _write_manifest(release: Release, path: Path) -> None:
    with path.open("wb") as file:
        file.write(orjson.dumps(asdict(release), option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
