"""Text → unit vectors with sentence-transformers."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from sentence_transformers import SentenceTransformer

from models.engines.model_files import ModelSource, is_local, refuse_pickles
from models.errors import EmbedderError
from models.ports import Vectors
from models.settings import EmbedderSettings


class SentenceEmbedder:
    """TextEmbedder over a sentence-transformers model; safe to call from several threads."""

    def __init__(self, source: ModelSource, settings: EmbedderSettings) -> None:
        self.model = settings.model
        self._batch = settings.batch
        self._network = _load(source)
        self._one_at_a_time = threading.Lock()
        self.dimension = int(self._network.get_embedding_dimension() or 0)
        if not self.dimension:
            raise EmbedderError(f"the embedder {source} does not say how long its vectors are")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[len(texts), dimension], each row of length 1. The same text gives the same vector.

        Raises EmbedderError if the model makes something that is no finite vector.
        """
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        with self._one_at_a_time:
            vectors = self._network.encode(
                list(texts),
                batch_size=self._batch,
                convert_to_numpy=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return self._checked(np.asarray(vectors, np.float32))

    def _checked(self, vectors: Vectors) -> Vectors:
        if vectors.shape[1] != self.dimension or not np.isfinite(vectors).all():
            raise EmbedderError(f"{self.model} made vectors that are not finite or not its size")
        return vectors


def sentence_transformer(source: ModelSource, device: str | None = None) -> SentenceTransformer:
    """The library's model, weights from safetensors alone; raises whatever the library does."""
    refuse_pickles(source)
    return SentenceTransformer(
        str(source),
        local_files_only=is_local(source),
        device=device,
        model_kwargs={"use_safetensors": True},
    )


def _load(source: ModelSource) -> SentenceTransformer:
    try:
        return sentence_transformer(source)
    except Exception as error:  # a folder may be damaged in any way
        raise EmbedderError(f"the embedder {source} cannot be loaded: {error}") from error
