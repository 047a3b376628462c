"""From which models training goes on, and which releases it is compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import ReleaseError
from models.ports import Release
from models.release.store import FolderReleaseStore, base_release
from models.settings import Settings
from trainer.data.replay_sampling import Seen
from trainer.pipeline.parent import AS_THEY_COME, ParentModels, anchor_of, rolled_back, start_from

AT, HERE, THERE = 1_300_000_000_000, "a" * 64, "b" * 64


@pytest.fixture
def settings(make_settings) -> Settings:
    return make_settings()


@pytest.fixture
def store(settings: Settings) -> FolderReleaseStore:
    found = FolderReleaseStore(settings.releases_dir)
    found.publish(base_release(settings, AT))
    return found


@pytest.fixture
def trained(settings: Settings, store, tmp_path: Path):
    """`trained("taste-1", HERE)` publishes a release with an adapter for those weights."""
    weights = tmp_path / "adapter"
    weights.mkdir()
    (weights / "adapter_model.safetensors").write_bytes(b"weights")

    def publish(name: str, model_hash: str) -> Release:
        release = replace(
            base_release(settings, AT),
            id=name,
            adapter="adapter",
            base_model_hash=model_hash,
            data_range={"train_end": 70, "next_offsets": {"0": 7}},
        )
        return store.publish(release, {"adapter": weights})

    return publish


def start(store, settings: Settings, name: str) -> ParentModels:
    return start_from(store, store.get(name), settings, HERE)


def test_training_goes_on_from_what_the_serving_release_has_learned(
    settings, store, trained
) -> None:
    found = start(store, settings, trained("taste-1", HERE).id)

    assert found.models.adapter == store.folder("taste-1") / "adapter"
    assert found.seen == Seen(70, {0: 7})
    assert found.reason is None


def test_an_adapter_for_other_weights_is_nothing_to_go_on_from(settings, store, trained) -> None:
    found = start(store, settings, trained("taste-1", THERE).id)

    assert (found.models, found.seen) == (AS_THEY_COME, Seen())
    assert found.reason is not None
    assert "was trained on other weights" in found.reason


def test_a_damaged_serving_release_is_not_trained_on(settings, store, trained) -> None:
    name = trained("taste-1", HERE).id
    flip_a_byte(store, name)

    with pytest.raises(ReleaseError, match=r"taste-1.*adapter_model\.safetensors.*restore it"):
        start(store, settings, name)


def flip_a_byte(store, name: str) -> None:
    path = store.folder(name) / "adapter" / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(b"Weights")


def test_the_first_release_that_served_is_the_anchor(settings, store, trained) -> None:
    serving = start(store, settings, trained("taste-2", HERE).id)
    trained("taste-1", HERE)

    assert anchor_of(store, "taste-1", serving, settings, HERE).release.id == "taste-1"
    assert anchor_of(store, "", serving, settings, HERE) == serving
    assert anchor_of(store, "taste-2", serving, settings, HERE) == serving


@pytest.mark.parametrize(
    "why", ["was trained on other weights", "there is no release", "changed since it was published"]
)
def test_an_anchor_that_cannot_be_loaded_is_replaced_with_the_reason(
    settings, store, trained, why: str
) -> None:
    serving = start(store, settings, trained("taste-2", HERE).id)
    if "weights" in why:
        trained("taste-1", THERE)
    if "changed" in why:
        trained("taste-1", HERE)
        flip_a_byte(store, "taste-1")

    found = anchor_of(store, "taste-1", serving, settings, HERE)

    assert (found.release, found.models, found.seen) == (
        serving.release,
        serving.models,
        serving.seen,
    )
    assert found.reason is not None
    assert "taste-2 is the anchor from now on, in the place of taste-1" in found.reason
    assert why in found.reason


@pytest.fixture
def descends(settings: Settings, store):
    """`descends("taste-2", "taste-1")` publishes a release that went on from the other."""

    def publish(name: str, parent: str | None) -> Release:
        release = replace(base_release(settings, AT), id=name, parent=parent, kind="trained")
        return store.publish(release)

    return publish


def test_a_release_that_the_serving_one_did_not_go_on_from_was_rolled_back(store, descends) -> None:
    first = descends("taste-1", "base-0")
    second = descends("taste-2", "taste-1")

    assert not any(rolled_back(store, name, second) for name in ("taste-2", "taste-1", "base-0"))
    assert rolled_back(store, "taste-2", first)
    assert rolled_back(store, "taste-2", store.get("base-0"))


@pytest.mark.parametrize("parent", [None, "gone"], ids=["names no parent", "its parent is gone"])
def test_a_release_whose_origin_is_not_known_lets_no_other_be_taken_for_rolled_back(
    store, descends, parent: str | None
) -> None:
    descends("taste-1", parent)

    assert not rolled_back(store, "base-0", descends("taste-2", "taste-1"))
