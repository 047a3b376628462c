from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import ReleaseError
from models.fakes import MemoryReleaseStore
from models.ports import Release
from models.profile.prompts import PROMPT_VERSION
from models.release.starter import ADAPTER_FILES, fitting_starter, read_starter
from models.release.store import FolderReleaseStore, manifest, with_files
from models.settings import EmbedderSettings, ProfileSettings, Settings
from streams.indexer import first_release
from streams.indexer.first_release import first_release as made_first

BASE = Settings(profile=ProfileSettings(starter=False))


def test_without_a_serving_release_the_base_is_made_once() -> None:
    store = MemoryReleaseStore()
    made = made_first(BASE, store, ())
    assert made.id == "base-0"
    assert made.embedder == BASE.embedder.model
    assert set(made.hashes) == {"model.safetensors", "SmolLM2-135M-Instruct.Q4_1.gguf"}
    assert made_first(BASE, store, ()) == made
    assert made_first(BASE, store, ("base-0",)) is None


def test_where_a_release_was_in_force_none_is_made_even_if_it_is_not_here() -> None:
    store = MemoryReleaseStore()
    assert made_first(BASE, store, ("next-1",)) is None
    assert store.ids() == []


def test_the_base_is_made_again_and_announced_only_if_it_is_in_force() -> None:
    store = MemoryReleaseStore()
    assert made_first(BASE, store, ("next-1", "base-0")) is None
    assert store.ids() == ["base-0"]
    again = made_first(BASE, MemoryReleaseStore(), ("base-0", "next-1"))
    assert again is not None
    assert again.id == "base-0"


def test_vectors_of_two_embedders_are_not_mixed() -> None:
    store = MemoryReleaseStore()
    made_first(BASE, store, ())
    other = Settings(profile=BASE.profile, embedder=EmbedderSettings(model="owner/other"))
    with pytest.raises(ReleaseError, match="owner/other"):
        made_first(other, store, ())


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    """A starter release with an adapter of a few bytes."""
    folder = tmp_path / "starter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    settings = Settings()
    made = Release(
        id="starter-1",
        base_model=settings.profile.model,
        adapter="adapter",
        embedder=settings.embedder.model,
        prompt_version=PROMPT_VERSION,
        window_spec={"short_hours": 1.0},  # need not be the configured ones
        created_at="2026-11-21T00:00:00Z",
        metrics={"grounding": 0.9},
        kind="starter",
    )
    files = {f"adapter/{name}": folder / name for name in ADAPTER_FILES}
    (folder / "manifest.json").write_bytes(manifest(with_files(made, files)))
    return folder


def test_the_starter_release_is_the_first_where_it_fits(
    starter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        first_release, "fitting_starter", lambda settings: fitting_starter(settings, starter)
    )
    store = FolderReleaseStore(tmp_path / "releases")
    made = made_first(Settings(), store, ())
    assert made == made_first(Settings(), store, ()) == store.verify("starter-1")
    weights = store.folder("starter-1") / "adapter" / "adapter_model.safetensors"
    assert weights.read_bytes() == b"weights"
    base = made_first(BASE, store, ())
    assert base is not None
    assert base.id == "base-0"
    assert made_first(BASE, store, ("starter-1",)) is None


@pytest.mark.parametrize(
    "settings",
    [
        BASE,
        Settings(profile=ProfileSettings(engine="extractive")),
        Settings(profile=ProfileSettings(engine="openai", served_model="theirs")),
        Settings(profile=ProfileSettings(engine="openai", model="owner/other")),
        Settings(embedder=EmbedderSettings(model="owner/other")),
    ],
)
def test_a_starter_release_that_is_unwanted_or_does_not_fit_is_left_aside(
    starter: Path, settings: Settings
) -> None:
    assert fitting_starter(Settings(), starter) is not None
    assert fitting_starter(settings, starter) is None


def test_a_starter_release_for_other_prompts_or_weights_is_left_aside(starter: Path) -> None:
    release = read_starter(starter).release
    for other in (
        replace(release, prompt_version="lines-0"),
        replace(release, base_model_hash="0" * 64),
    ):
        (starter / "manifest.json").write_bytes(manifest(other))
        assert fitting_starter(Settings(), starter) is None


def test_without_a_starter_folder_there_is_none_and_a_damaged_one_is_said(
    starter: Path, tmp_path: Path
) -> None:
    assert fitting_starter(Settings(), tmp_path / "nowhere") is None
    (starter / "adapter_model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ReleaseError, match="not as the manifest says"):
        fitting_starter(Settings(), starter)
    (starter / "adapter_model.safetensors").unlink()
    with pytest.raises(ReleaseError, match=r"adapter_model.safetensors.*profile.starter"):
        fitting_starter(Settings(), starter)
    (starter / "manifest.json").write_text("{")
    with pytest.raises(ReleaseError, match="not a release manifest"):
        fitting_starter(Settings(), starter)
