"""Systems that need torch or were learned, built on a Context; named in evaluation/registry.py.

noprofile            the history's raw text, the embedder as it comes (methods §1.8)
noprofile-cl         the same after contrastive training on the corpus's training sessions
extractive-profile   the profile that stands in where no model answers
*-shuffled           the control: another user's text
sasrec               see sequence_system
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from models.encoders.tokens import token_counter
from models.model_files import embedder_model, language_model
from models.ports import TextEmbedder
from models.profiles import compose
from models.settings import Settings
from trainer.corpus import Corpus, sample_users
from trainer.evaluation.context import Context
from trainer.evaluation.evaluate import evaluate
from trainer.learning.contrastive import ContrastiveResult, Embed, Validate, train_embedder
from trainer.learning.pairs import history_text, pairs_of
from trainer.learning.profile_systems import (
    EmbeddedTextSystem,
    RememberingEmbedder,
    TextOf,
    shuffled,
)
from trainer.learning.text_tower import TextTower
from trainer.sessions import Session, request_of
from trainer.vectors import cached_vectors

VALIDATION_USERS: Final = 500  # a validation embeds the catalogue and their histories

logger = logging.getLogger(__name__)


def noprofile(context: Context) -> EmbeddedTextSystem:
    """Raw history text, zero-shot."""
    return _by_base("noprofile", context, history_text(context.corpus))


def noprofile_shuffled(context: Context) -> EmbeddedTextSystem:
    """Another user's raw history text."""
    return _by_base("noprofile-shuffled", context, _shuffled(context, history_text(context.corpus)))


def noprofile_cl(context: Context) -> EmbeddedTextSystem:
    """Raw history text with an embedder trained on it, or read back from the cache folder."""
    corpus, settings = context.corpus, context.settings
    folder = context.cache / "noprofile-cl" / f"{corpus.name}-{corpus.protocol}"
    result = train_noprofile(corpus, settings, folder)
    tower = TextTower(result.embedder, settings.train.contrastive)
    _, texts = corpus.embedding_texts()
    items = cached_vectors(texts, lambda: tower, tower.fingerprint(), context.cache)
    return EmbeddedTextSystem("noprofile-cl", history_text(corpus), tower, items)


def extractive_profile(context: Context) -> EmbeddedTextSystem:
    """The profile that the live system writes without a model's answer."""
    return _by_base(
        "extractive-profile", context, extractive_text(context.corpus, context.settings)
    )


def extractive_profile_shuffled(context: Context) -> EmbeddedTextSystem:
    """Another user's extractive profile."""
    text_of = extractive_text(context.corpus, context.settings)
    return _by_base("extractive-profile-shuffled", context, _shuffled(context, text_of))


def extractive_text(corpus: Corpus, settings: Settings) -> TextOf:
    """Session → text of its extractive profile."""
    count_tokens = token_counter(language_model(settings))

    def text_of(session: Session) -> str:
        request = request_of(session, corpus.spec, corpus.text_of)
        return compose(request, None, count_tokens).text

    return text_of


def train_noprofile(
    corpus: Corpus,
    settings: Settings,
    folder: Path,
    *,
    device: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> ContrastiveResult:
    """Contrastive training on the raw histories of the training sessions.

    The step with the best NDCG on validation sessions is kept. `folder` keeps the run, and what
    was finished is read back. Raises TrainingError.
    """
    text_of = history_text(corpus)
    ids, texts = corpus.embedding_texts()
    return train_embedder(
        pairs_of(corpus, corpus.sessions.train, text_of),
        dict(zip(ids, texts, strict=True)),
        embedder_model(settings),
        settings.train.contrastive,
        folder,
        validate=ranking_validation(corpus, text_of, settings),
        device=device,
        advance=advance,
    )


def ranking_validation(
    corpus: Corpus,
    text_of: TextOf,
    settings: Settings,
    sessions: Sequence[Session] | None = None,
) -> Validate:
    """NDCG by the gate's metric on these sessions, or on some users' validation sessions."""
    chosen = settings.train.evaluation
    sessions = sessions or sample_users(corpus.sessions.validation, VALIDATION_USERS, chosen.seed)
    _, texts = corpus.embedding_texts()

    def value(embed: Embed) -> float:
        system = EmbeddedTextSystem("validated", text_of, _Embedding(embed), embed(texts))
        report = evaluate(corpus, [system], sessions, chosen)
        return float(np.mean(report.values("validated", settings.train.gate.metric)))

    return value


class _Embedding:
    """A function as a TextEmbedder."""

    model = "in training"

    def __init__(self, embed: Embed) -> None:
        self.embed = embed
        self.dimension = embed(["dimension"]).shape[1]


def _by_base(name: str, context: Context, text_of: TextOf) -> EmbeddedTextSystem:
    embedder: TextEmbedder = RememberingEmbedder(context.embedder)
    return EmbeddedTextSystem(name, text_of, embedder, context.item_vectors)


def _shuffled(context: Context, text_of: TextOf) -> TextOf:
    sessions: Sequence[Session] = context.corpus.sessions.test
    return shuffled(text_of, sessions, context.settings.train.evaluation.seed)
