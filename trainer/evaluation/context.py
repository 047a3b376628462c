"""What systems are built from: the corpus, the embedder and what follows from them, made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from models.ports import TextEmbedder, Vectors
from models.ranking.catalogue import Catalogue
from models.ranking.neighbours import Neighbours
from models.settings import Settings
from trainer.baselines.training_free import catalogue_of, neighbours_of
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.data.vector_cache import cached_vectors


@dataclass(frozen=True)
class Context:
    """The ground on which compared systems stand."""

    corpus: Corpus
    settings: Settings
    make_embedder: Callable[[], TextEmbedder]
    embedder_identity: str  # changes with the embedder's weights
    cache: Path  # folder outside version control
    sessions: Sequence[Session] | None = None  # that are evaluated; None: those of the test

    @property
    def evaluated(self) -> Sequence[Session]:
        """The sessions that systems will be asked for."""
        return self.corpus.sessions.test if self.sessions is None else self.sessions

    @cached_property
    def embedder(self) -> TextEmbedder:
        """Loaded at first use."""
        return self.make_embedder()

    @cached_property
    def item_vectors(self) -> Vectors:
        """[items, dimension] in the order of `corpus.item_ids`."""
        _, texts = self.corpus.embedding_texts()
        return cached_vectors(texts, lambda: self.embedder, self.embedder_identity, self.cache)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items as ranking holds them."""
        return catalogue_of(self.corpus, self.item_vectors)

    @cached_property
    def neighbours(self) -> Neighbours:
        """Co-occurrence of what is known."""
        return neighbours_of(self.corpus, self.catalogue, self.settings.index)
