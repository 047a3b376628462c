"""Vectors of many texts, kept on disk: embedding a catalogue takes minutes on a small machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models.durable import replacing
from models.identity import digest, text_hash
from models.ports import TextEmbedder, Vectors

logger = logging.getLogger(__name__)


def cached_vectors(
    texts: Sequence[str], embedder: Callable[[], TextEmbedder], identity: str, folder: Path
) -> Vectors:
    """[len(texts), dimension] by the embedder that `identity` names, from `folder` if known.

    `identity` must change with the embedder's weights; `embedder` is only called when the
    vectors have to be made. A file that is read is as young as one that is written.
    """
    path = folder / f"{digest(identity, [text_hash(text) for text in texts])}.npy"
    if path.exists():
        path.touch()
        found: Vectors = np.load(path, allow_pickle=False)
        return found
    logger.info("embedding %d texts with %s", len(texts), identity)
    made = embedder().embed(texts)
    _write(path, made)
    return made


def forget_unused(folder: Path, since: float) -> None:
    """Remove what neither was written nor read since then (epoch s)."""
    for path in folder.glob("*.npy"):
        if path.stat().st_mtime < since:
            path.unlink()


def _write(path: Path, vectors: Vectors) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, vectors)
