from __future__ import annotations

import pytest

from models.errors import ReleaseError
from models.fakes import MemoryReleaseStore
from models.settings import EmbedderSettings, Settings
from streams.indexer.first_release import release_to_index


def test_without_a_serving_release_the_base_is_made_once() -> None:
    store = MemoryReleaseStore()
    made = release_to_index(Settings(), store, None)
    assert made.id == "base-0"
    assert made.embedder == Settings().embedder.model
    assert set(made.hashes) == {"model.safetensors", "SmolLM2-135M-Instruct.Q4_1.gguf"}
    assert release_to_index(Settings(), store, None) == made
    assert release_to_index(Settings(), store, "base-0") == made


def test_a_serving_release_that_is_not_here_is_an_error() -> None:
    with pytest.raises(ReleaseError, match="no release 'next-1'"):
        release_to_index(Settings(), MemoryReleaseStore(), "next-1")


def test_vectors_of_two_embedders_are_not_mixed() -> None:
    store = MemoryReleaseStore()
    release_to_index(Settings(), store, None)
    other = Settings(embedder=EmbedderSettings(model="owner/other"))
    with pytest.raises(ReleaseError, match="owner/other"):
        release_to_index(other, store, "base-0")
