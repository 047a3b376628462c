"""One suite for the port ReleaseStore: folders and the shipped fake."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import ReleaseError
from models.fakes import MemoryReleaseStore
from models.model_files import weight_files
from models.ports import Release, ReleaseStore
from models.releases import FolderReleaseStore, base_release
from models.settings import Settings


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ReleaseStore:
    return (
        FolderReleaseStore(tmp_path / "releases")
        if request.param == "folder"
        else MemoryReleaseStore()
    )


def release(name: str = "base-0", created_at_ms: int = 1_600_000_000_000) -> Release:
    return replace(base_release(Settings(), created_at_ms), id=name)


def test_what_is_published_can_be_read(store: ReleaseStore) -> None:
    published = store.publish(release())
    assert len(published.manifest_sha256) == 64
    assert store.get("base-0") == published


def test_publishing_the_same_again_changes_nothing(store: ReleaseStore) -> None:
    assert store.publish(release()) == store.publish(release())


def test_other_content_under_a_known_id_is_refused(store: ReleaseStore) -> None:
    store.publish(release())
    with pytest.raises(ReleaseError, match="other content"):
        store.publish(replace(release(), embedder="another"))
    assert store.get("base-0").embedder == release().embedder


def test_an_unknown_release_is_an_error(store: ReleaseStore) -> None:
    with pytest.raises(ReleaseError, match="no release"):
        store.get("none")


def test_ids_come_oldest_first(store: ReleaseStore) -> None:
    assert store.ids() == []
    store.publish(release("b", 2_000_000_000_000))
    store.publish(release("c", 1_000_000_000_000))
    store.publish(release("a", 2_000_000_000_000))
    assert store.ids() == ["c", "a", "b"]


def test_the_hash_covers_every_field() -> None:
    known = base_release(Settings(), 1_600_000_000_000)
    assert known.manifest_sha256 != base_release(Settings(), 1_600_000_000_001).manifest_sha256


def test_the_manifest_names_the_weights_by_their_hash(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    known = base_release(Settings(), 1_600_000_000_000, [weights])
    assert known.hashes == {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}


def test_the_bundled_weights_are_found() -> None:
    names = [path.suffix for path in weight_files(Settings())]
    assert names == [".safetensors", ".gguf"]


@pytest.mark.parametrize("edit", [b"{", b'{"id": "base-0"}'])
def test_a_manifest_that_was_damaged_is_refused(tmp_path: Path, edit: bytes) -> None:
    store = FolderReleaseStore(tmp_path)
    store.publish(release())
    (tmp_path / "base-0" / "manifest.json").write_bytes(edit)
    with pytest.raises(ReleaseError, match="not a release manifest"):
        store.get("base-0")


def test_a_manifest_that_was_edited_is_refused(tmp_path: Path) -> None:
    store = FolderReleaseStore(tmp_path)
    store.publish(release())
    manifest = tmp_path / "base-0" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("minilm", "maxilm"))
    with pytest.raises(ReleaseError, match="changed after"):
        store.get("base-0")


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b", ""])
def test_an_id_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReleaseError):
        FolderReleaseStore(tmp_path).publish(release(name))
