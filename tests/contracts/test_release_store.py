"""One suite for the port ReleaseStore: folders and the shipped fake."""

from __future__ import annotations

import errno
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from models.engines.model_files import weight_files
from models.errors import ReleaseError
from models.fakes import MemoryReleaseStore
from models.ports import CanaryLine, Release, ReleaseStore
from models.release.store import (
    FolderReleaseStore,
    adapter_folder,
    base_release,
    embedder_folder,
    embedder_hash,
)
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


@pytest.mark.parametrize("name", ["x" * 256, "é" * 256, "a\x01b", "..", "a/b", " "])
def test_a_name_that_no_release_can_have_is_an_unknown_release(
    store: ReleaseStore, name: str
) -> None:
    for ask in (store.get, store.verify, store.folder):
        with pytest.raises(ReleaseError, match="release"):
            ask(name)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A folder and a file, as a trainer has them before it releases."""
    adapter = tmp_path / "made" / "adapter"
    (adapter / "deep").mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "deep" / "config.json").write_bytes(b"{}")
    card = tmp_path / "made" / "card.md"
    card.write_text("A card.")
    return {"adapter": adapter, "README.md": card}


def test_files_are_copied_and_named_by_their_hash(
    store: ReleaseStore, files: dict[str, Path]
) -> None:
    published = store.publish(replace(release(), adapter="adapter"), files)
    assert published.files == {
        "README.md": hashlib.sha256(b"A card.").hexdigest(),
        "adapter/adapter_model.safetensors": hashlib.sha256(b"weights").hexdigest(),
        "adapter/deep/config.json": hashlib.sha256(b"{}").hexdigest(),
    }
    shutil.rmtree(files["adapter"])  # the release does not need where it came from
    assert store.verify("base-0") == store.get("base-0") == published
    folder = adapter_folder(store, published)
    assert folder == store.folder("base-0") / "adapter"
    assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"


def test_the_same_files_again_change_nothing_and_others_are_refused(
    store: ReleaseStore, files: dict[str, Path]
) -> None:
    first = store.publish(release(), files)
    assert store.publish(release(), files) == first
    (files["adapter"] / "adapter_model.safetensors").write_bytes(b"others")
    with pytest.raises(ReleaseError, match="other content"):
        store.publish(release(), files)
    assert store.verify("base-0") == first


def test_a_file_that_changed_or_went_is_found(store: ReleaseStore, files: dict[str, Path]) -> None:
    store.publish(release(), files)
    weights = store.folder("base-0") / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"damaged")
    with pytest.raises(ReleaseError, match=r"adapter_model.safetensors.*changed"):
        store.verify("base-0")
    weights.unlink()
    with pytest.raises(ReleaseError, match=r"adapter_model.safetensors"):
        store.verify("base-0")


@pytest.mark.parametrize("path", ["../up", "/etc/up", "a/../../up", "manifest.json", "", "."])
def test_a_path_outside_the_folder_is_refused(
    store: ReleaseStore, files: dict[str, Path], path: str
) -> None:
    with pytest.raises(ReleaseError, match="path inside"):
        store.publish(release(), {path: files["README.md"]})
    assert store.ids() == []


def test_a_file_that_is_not_there_is_refused(store: ReleaseStore, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="no file"):
        store.publish(release(), {"adapter": tmp_path / "nothing"})
    assert store.ids() == []


def test_everything_in_a_manifest_comes_back(store: ReleaseStore) -> None:
    lines = (CanaryLine("Likes:", " tea", -4.5, -9.25), CanaryLine("Now:", " cups", -2.0, -3.0))
    full = replace(
        release("taste-1"),
        metrics={"ndcg@10": {"value": 0.05, "interval": (0.04, 0.06)}},
        data_range={"first": "2010-12-01T00:00:00Z", "last": "2011-12-01T00:00:00Z"},
        base_model_hash="ab" * 32,
        canary=lines,
        parent="base-0",
        kind="trained",
    )
    published = store.publish(full)
    assert store.get("taste-1") == published
    assert published.canary == lines
    assert (published.parent, published.kind) == ("base-0", "trained")
    assert published.metrics["ndcg@10"]["interval"] == [0.04, 0.06]


def test_an_adapter_that_is_only_named_is_an_error(store: ReleaseStore) -> None:
    named = store.publish(replace(release(), adapter="../other/adapter"))
    with pytest.raises(ReleaseError, match="no such files"):
        adapter_folder(store, named)
    assert adapter_folder(store, store.publish(release("plain"))) is None


def test_an_embedder_is_the_releases_own_only_if_it_brings_one(
    store: ReleaseStore, files: dict[str, Path]
) -> None:
    bundled = store.publish(release())
    own = store.publish(
        replace(release("own"), embedder="embedder"), {"embedder": files["adapter"]}
    )
    assert embedder_folder(store, bundled) is None
    assert embedder_folder(store, own) == store.folder("own") / "embedder"
    assert embedder_hash(bundled) == "all-minilm-l6-v2" != embedder_hash(own)
    assert embedder_hash(own) == embedder_hash(replace(own, id="another"))


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


def test_a_full_disk_leaves_nothing_half_made(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderReleaseStore(tmp_path / "releases")
    store.publish(release())
    copied = shutil.copyfile

    def full_after_one(source: Path, target: Path) -> None:
        if source.name == "config.json":
            target.write_bytes(b"{")
            raise OSError(errno.ENOSPC, "No space left on device")
        copied(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full_after_one)
        with pytest.raises(ReleaseError, match="No space left"):
            store.publish(release("taste-1"), files)
    assert store.ids() == ["base-0"]
    assert {path.name for path in (tmp_path / "releases").iterdir()} <= {"base-0", ".lock"}
    assert store.publish(release("taste-1"), files).id == "taste-1"


def test_what_a_killed_publisher_left_is_not_listed_and_is_cleared(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    store = FolderReleaseStore(tmp_path)
    store.publish(release())
    shutil.copytree(tmp_path / "base-0", tmp_path / ".draft-killed")
    assert store.ids() == ["base-0"]
    store.publish(release("taste-1"), files)
    assert not (tmp_path / ".draft-killed").exists()


def test_a_damaged_release_does_not_hide_the_others(tmp_path: Path) -> None:
    store = FolderReleaseStore(tmp_path)
    store.publish(release())
    store.publish(release("taste-1"))
    (tmp_path / "taste-1" / "manifest.json").write_bytes(b"{")
    assert store.ids() == ["taste-1", "base-0"]


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b", ""])
def test_an_id_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReleaseError):
        FolderReleaseStore(tmp_path).publish(release(name))
