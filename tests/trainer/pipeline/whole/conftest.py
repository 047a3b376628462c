"""A log, two tiny models and a store for whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.release.store import FolderReleaseStore, base_release
from models.settings import Settings
from models.training_settings import TrainSettings
from tests.trainer.small_run import QUICK, SMALL, START_MS, tiny_pair


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    return tiny_pair(tmp_path_factory.mktemp("models"))


@pytest.fixture
def settings(make_settings, models) -> Settings:
    language, embedder = map(str, models)
    profile = {"model": language, "max_new_tokens": 160}
    return make_settings(train=SMALL, profile=profile, embedder={"model": embedder})


@pytest.fixture
def quick(settings: Settings) -> Settings:
    train = TrainSettings.model_validate(QUICK)
    return settings.model_copy(update={"train": train})


@pytest.fixture
def store(settings: Settings) -> FolderReleaseStore:
    found = FolderReleaseStore(settings.releases_dir)
    found.publish(base_release(settings, START_MS))
    return found
