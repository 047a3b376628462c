"""Vectors on disk: made once, and again when text or embedder changes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from models.fakes import HashEmbedder
from trainer.data.vector_cache import cached_vectors, forget_unused


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


def test_only_what_was_used_since_a_time_is_kept(tmp_path: Path) -> None:
    cached_vectors(["tea"], HashEmbedder, "old", tmp_path)
    cached_vectors(["tea"], HashEmbedder, "read again", tmp_path)
    for path in tmp_path.iterdir():
        os.utime(path, (1_000, 1_000))
    cached_vectors(["tea"], HashEmbedder, "read again", tmp_path)
    cached_vectors(["tea"], HashEmbedder, "new", tmp_path)
    kept = sorted(tmp_path.iterdir())

    forget_unused(tmp_path, since=2_000)

    assert len(kept) == 3
    assert len(list(tmp_path.iterdir())) == 2
