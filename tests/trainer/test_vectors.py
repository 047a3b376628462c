"""Vectors on disk: made once, and again when text or embedder changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.fakes import HashEmbedder
from trainer.vectors import cached_vectors


def test_known_texts_are_not_embedded_again(tmp_path: Path) -> None:
    made: list[str] = []

    def embedder() -> HashEmbedder:
        made.append("loaded")
        return HashEmbedder()

    first = cached_vectors(["tea", "cup"], embedder, "hash", tmp_path)
    again = cached_vectors(["tea", "cup"], embedder, "hash", tmp_path)
    other = cached_vectors(["cup", "tea"], embedder, "hash", tmp_path)
    renewed = cached_vectors(["tea", "cup"], embedder, "hash, trained", tmp_path)

    assert made == ["loaded"] * 3
    assert np.array_equal(first, again)
    assert np.array_equal(first, other[::-1])
    assert np.array_equal(first, renewed)
