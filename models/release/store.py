"""Release folders: written once, never changed, and checked at every load."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import orjson
from filelock import FileLock, Timeout

from models.durable import flush
from models.errors import ReleaseError
from models.identity import digest
from models.ports import CanaryLine, Release, ReleaseStore
from models.profile.prompts import PROMPT_VERSION
from models.release.files import MANIFEST, changed, copy, file_hash, hashes, sources
from models.schemas import to_rfc3339
from models.settings import Settings

log = logging.getLogger(__name__)

BASE_RELEASE: Final = "base-0"  # made at first start: the models as they come
PUBLISH_WITHIN_S: Final = 120.0  # copying an adapter and an embedder takes a second or two


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
            hashes={path.name: file_hash(path) for path in weights},
        )
    )


def adapter_folder(store: ReleaseStore, release: Release) -> Path | None:
    """The folder of the release's adapter, as PEFT writes it; None if it has none.

    Raises ReleaseError if it is not among the release's files.
    """
    if release.adapter is None:
        return None
    if not _files_in(release, release.adapter):
        raise ReleaseError(
            f"release {release.id!r} names the adapter {release.adapter!r} and has no such files; "
            "publish it again, with them, under a new id"
        )
    return store.folder(release.id) / release.adapter


def embedder_folder(store: ReleaseStore, release: Release) -> Path | None:
    """The folder of the release's own embedder; None if it uses the one that the settings name."""
    return store.folder(release.id) / release.embedder if brings_embedder(release) else None


def brings_embedder(release: Release) -> bool:
    """Whether the release has an embedder of its own, in its folder."""
    return bool(_files_in(release, release.embedder))


def embedder_hash(release: Release) -> str:
    """A name for the release's embedder that is another for other weights."""
    own = _files_in(release, release.embedder)
    return digest(own, chars=64) if own else release.embedder


def _files_in(release: Release, folder: str) -> dict[str, str]:
    """sha256 by relative path."""
    return {path: sha for path, sha in release.files.items() if path.startswith(f"{folder}/")}


def sealed(release: Release) -> Release:
    """The release with the hash of everything else in it."""
    content = asdict(release)
    content.pop("manifest_sha256")
    return replace(release, manifest_sha256=digest(content, chars=64))


def manifest(release: Release) -> bytes:
    """The manifest's bytes."""
    return orjson.dumps(asdict(release), option=orjson.OPT_INDENT_2)


def read_manifest(content: bytes) -> Release:
    """The release that a manifest states. Raises ValueError or TypeError if it is none."""
    fields = orjson.loads(content)
    canary = tuple(CanaryLine(**line) for line in fields.get("canary", ()))
    return Release(**{**fields, "canary": canary})


class FolderReleaseStore:
    """ReleaseStore in a folder: one sub-folder per release, with its files and its manifest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def publish(self, release: Release, files: Mapping[str, Path] | None = None) -> Release:
        """See ReleaseStore. Written under another name, made durable, then renamed."""
        found = sources(files or {})
        path = self._path(release.id)
        try:
            published = with_files(release, found)
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock", timeout=PUBLISH_WITHIN_S):
                self._clear_drafts()
                if not path.exists():
                    self._write(published, found, path)
        except Timeout as error:
            raise ReleaseError(
                f"another process has been publishing in {self._folder} for "
                f"{PUBLISH_WITHIN_S:.0f} s; stop it, then publish again"
            ) from error
        except OSError as error:
            raise ReleaseError(
                f"release {release.id!r} cannot be written to {self._folder}: {error}; nothing of "
                "it was kept. Make room, then publish it again"
            ) from error
        return self._same(published)

    def _clear_drafts(self) -> None:
        """What a killed publisher left; nobody else writes while the lock is held."""
        for draft in self._folder.glob(".draft-*"):
            shutil.rmtree(draft, ignore_errors=True)

    def _write(self, published: Release, files: Mapping[str, Path], path: Path) -> None:
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self._folder))
        try:
            copy(files, draft)
            (draft / MANIFEST).write_bytes(manifest(published))
            flush(draft / MANIFEST)
            self._check_copies(published, draft)
            draft.chmod(0o755)  # mkdtemp's folders are for their owner only
            flush(draft)
            draft.rename(path)
            flush(self._folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _check_copies(self, published: Release, folder: Path) -> None:
        wrong = changed(published.files, folder)
        if wrong:
            raise ReleaseError(
                f"release {published.id!r}: {wrong[0]} changed while it was copied; nothing was "
                "published. Publish again once nobody writes to it"
            )

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
        path = self._path(release_id) / MANIFEST
        try:
            release = read_manifest(path.read_bytes())
        except FileNotFoundError as error:
            raise ReleaseError(f"there is no release {release_id!r} in {self._folder}") from error
        except OSError as error:  # a name that no folder can have, a folder that is not ours
            raise ReleaseError(f"release {release_id!r} cannot be read: {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ReleaseError(f"{path} is not a release manifest: {error}") from error
        if release.id != release_id or sealed(release) != release:
            raise ReleaseError(f"{path} was changed after it was published; restore it")
        return release

    def ids(self) -> list[str]:
        """All published ids, oldest first; a damaged one comes first and is said."""
        names = [path.parent.name for path in self._folder.glob(f"*/{MANIFEST}")]
        return sorted(
            (name for name in names if not name.startswith(".")),
            key=lambda name: (self._created_at(name), name),
        )

    def _created_at(self, release_id: str) -> str:
        try:
            return self.get(release_id).created_at
        except ReleaseError as error:  # one damaged folder must not hide the others
            log.warning("%s", error)
            return ""

    def folder(self, release_id: str) -> Path:
        """See ReleaseStore."""
        return self._path(self.get(release_id).id)

    def verify(self, release_id: str) -> Release:
        """See ReleaseStore."""
        release = self.get(release_id)
        try:
            wrong = changed(release.files, self._path(release_id))
        except OSError as error:
            raise ReleaseError(f"release {release_id!r} cannot be read: {error}") from error
        if wrong:
            raise ReleaseError(
                f"release {release_id!r}: {', '.join(wrong)} in {self._path(release_id)} is gone "
                "or changed since it was published; restore it"
            )
        return release

    def _path(self, release_id: str) -> Path:
        if not release_id or release_id.startswith(".") or Path(release_id).name != release_id:
            raise ReleaseError(f"{release_id!r} cannot be the name of a release folder")
        return self._folder / release_id


def with_files(release: Release, files: Mapping[str, Path]) -> Release:
    """The release as it will be published with these files: hashed, sealed, in JSON's types."""
    return read_manifest(manifest(sealed(replace(release, files=hashes(files)))))
