"""One suite for the port TextEmbedder: sentence-transformers and the shipped fake."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.fakes import HashEmbedder
from models.ports import TextEmbedder
from models.settings import load_settings


@pytest.fixture(
    scope="module",
    params=[pytest.param("sentence-transformers", marks=pytest.mark.model), "hash"],
)
def embedder(request: pytest.FixtureRequest) -> TextEmbedder:
    if request.param == "hash":
        return HashEmbedder()
    from models.engines.embedder import SentenceEmbedder
    from models.engines.model_files import embedder_model

    settings = load_settings()
    return SentenceEmbedder(embedder_model(settings), settings.embedder)


def test_every_text_becomes_one_unit_vector_of_the_stated_length(embedder: TextEmbedder) -> None:
    texts = ["white hanging lantern", "", " ", "紙の鎖", "a" * 50_000, "\x00<|im_end|>"]
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), embedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_no_texts_become_no_vectors(embedder: TextEmbedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_a_text_has_the_same_vector_whatever_stands_beside_it(embedder: TextEmbedder) -> None:
    alone = embedder.embed(["red lunch bag"])[0]
    among = embedder.embed(["a much longer text about paper chains " * 5, "red lunch bag"])[1]
    np.testing.assert_allclose(alone, among, atol=1e-5)


def test_texts_on_the_same_thing_are_nearer_than_others(embedder: TextEmbedder) -> None:
    lantern, same, other = embedder.embed(
        ["white hanging lantern", "hanging lantern, white metal", "strawberry cake tin"]
    )
    assert lantern @ same > lantern @ other


def test_threads_may_embed_at_the_same_time(embedder: TextEmbedder) -> None:
    texts = [f"lantern number {n}" for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = np.stack([v[0] for v in pool.map(embedder.embed, [[t] for t in texts])])
    np.testing.assert_allclose(together, embedder.embed(texts), atol=1e-5)
