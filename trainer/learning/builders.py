"""Systems that need torch or were learned, built on a Context; named in evaluation/registry.py.

noprofile            the history's raw text, the embedder as it comes (methods §7.2)
noprofile-cl         the same after contrastive training on the corpus's training sessions
extractive-profile   the profile that stands in where no model answers
*-shuffled           the control: another user's text
sasrec               the sequence model
*-sasrec             hybrids with it, weights fitted on validation sessions by users' activity
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.engines.model_files import embedder_model, language_model
from models.engines.tokens import token_counter
from models.identity import digest
from models.ports import TextEmbedder
from models.profile.assembly import Composed, compose
from models.settings import Settings
from models.training_settings import EvaluationSettings
from trainer.baselines.builders import star
from trainer.data.corpus import Corpus, sample_users
from trainer.data.sessions import Session, request_of
from trainer.data.vector_cache import cached_vectors
from trainer.evaluation.context import Context
from trainer.evaluation.evaluate import evaluate, masks_seen, rankable
from trainer.evaluation.systems import System
from trainer.learning.contrastive import ContrastiveResult, Embed, ValidateTower, train_embedder
from trainer.learning.pairs import TextOf, history_text, pairs_of
from trainer.learning.profile_systems import (
    EmbeddedTextSystem,
    HybridSystem,
    RememberingEmbedder,
    TextsOf,
    fit_hybrid,
    one_by_one,
    shuffled,
)
from trainer.learning.sequence_system import SequenceSystem, fit_sasrec
from trainer.learning.text_tower import TextTower

ACTIVITIES: Final = (0, 10, 50)  # positives from which a hybrid's weight is another
PACE: Final = {"patience", "validate_every", "checkpoint_every"}  # may change later
VALIDATION_USERS: Final = 300  # a validation embeds the catalogue and their histories

logger = logging.getLogger(__name__)


def noprofile(context: Context) -> EmbeddedTextSystem:
    """Raw history text, zero-shot."""
    return _by_base("noprofile", context, _raw_histories(context))


def noprofile_shuffled(context: Context) -> EmbeddedTextSystem:
    """Another user's raw history text."""
    others = another_users(context, _raw_histories(context))
    return _by_base("noprofile-shuffled", context, others)


def noprofile_cl(context: Context) -> EmbeddedTextSystem:
    """Raw history text with an embedder trained on it, or read back from the cache folder."""
    corpus, settings = context.corpus, context.settings
    folder = learned_folder(context, "noprofile-cl")
    mask_seen = masks_seen(settings.train.evaluation, corpus.protocol)
    result = train_noprofile(corpus, settings, folder, mask_seen=mask_seen)
    tower = TextTower(result.embedder, settings.train.contrastive)
    _, texts = corpus.embedding_texts()
    items = cached_vectors(texts, lambda: tower, tower.fingerprint(), context.cache)
    return EmbeddedTextSystem(
        "noprofile-cl", one_by_one(raw_history(corpus, settings)), tower, items
    )


def sasrec(context: Context) -> SequenceSystem:
    """SASRec trained on the corpus, or read back."""
    folder = learned_folder(context, "sasrec")
    return fit_sasrec(context.corpus, context.settings, folder)


def star_sasrec(context: Context) -> HybridSystem:
    """The training-free scorer with the sequence model."""
    return with_sasrec("star-sasrec", star, context)


def noprofile_cl_sasrec(context: Context) -> HybridSystem:
    """Trained raw history text with the sequence model."""
    return with_sasrec("noprofile-cl-sasrec", noprofile_cl, context)


def with_sasrec(name: str, first: Callable[[Context], System], context: Context) -> HybridSystem:
    """The system that `first` makes, mixed with the sequence model."""
    corpus = context.corpus
    # Weights are chosen as they could have been chosen then: by what was known at validation.
    past = replace(context, corpus=corpus.at_validation())
    weights = _fitted(name, first(past), sasrec(past), past)
    logger.info("%s: weight of the first by activity: %s", name, dict(weights))
    return HybridSystem(name, first(context), sasrec(context), weights, _activity(corpus))


def _fitted(name: str, first: System, second: System, past: Context) -> Mapping[int, float]:
    corpus, chosen = past.corpus, past.settings.train.evaluation
    drawn = sample_users(corpus.sessions.validation, VALIDATION_USERS, chosen.seed)
    sessions = rankable(corpus, drawn, masks_seen(chosen, corpus.protocol))
    activities = np.array(list(map(_activity(corpus), sessions)), np.int64)

    def measure(system: System) -> NDArray[np.float64]:
        report = evaluate(corpus, [system], sessions, chosen)
        return report.result(system.name).metrics[past.settings.train.gate.metric]

    return fit_hybrid(name, first, second, measure, activities, ACTIVITIES)


def _activity(corpus: Corpus) -> Callable[[Session], int]:
    return lambda session: len(session.liked(corpus.spec))


def learned_folder(context: Context, name: str) -> Path:
    """Where the system is kept: another folder for other data, protocol or settings.

    A folder of data is known by its name, the log by what was read of it.
    """
    corpus, train = context.corpus, context.settings.train
    group = train.sasrec if name == "sasrec" else train.contrastive
    told = [group.model_dump(mode="json", exclude=PACE), *_unusual_mask(corpus, train.evaluation)]
    key = digest(*told, *(_read_of_log(context) if corpus.of_log else ()))[:8]
    return context.settings.data_dir / "learned" / f"{name}-{corpus.name}-{corpus.protocol}-{key}"


def _unusual_mask(corpus: Corpus, chosen: EvaluationSettings) -> list[bool]:
    """Training stops by what is ranked; nothing to say where that is as the protocol has it."""
    usual = chosen.model_copy(update={"mask_seen": None})
    masked = masks_seen(chosen, corpus.protocol)
    return [] if masked == masks_seen(usual, corpus.protocol) else [masked]


def _read_of_log(context: Context) -> list[Any]:
    corpus, read = context.corpus, context.corpus.data_range
    sessions = context.settings.train.sessions.model_dump(mode="json")
    spec = corpus.spec.model_dump(mode="json")
    return [
        read.borders,
        sorted(read.next_offsets.items()),
        sessions,
        spec,
        corpus.embedding_texts(),
    ]


def extractive_profile(context: Context) -> EmbeddedTextSystem:
    """The profile that the live system writes without a model's answer."""
    return _by_base("extractive-profile", context, _extractive_texts(context))


def extractive_profile_shuffled(context: Context) -> EmbeddedTextSystem:
    """Another user's extractive profile."""
    others = another_users(context, _extractive_texts(context))
    return _by_base("extractive-profile-shuffled", context, others)


def raw_history(corpus: Corpus, settings: Settings) -> TextOf:
    """Session → text of its newest items."""
    return history_text(corpus, settings.train.contrastive.history_items)


def extractive_profile_of(corpus: Corpus, settings: Settings) -> Callable[[Session], Composed]:
    """Session → its extractive profile."""
    compose_with = token_counter(language_model(settings)), settings.profile.max_tokens

    def profile_of(session: Session) -> Composed:
        return compose(request_of(session, corpus.spec, corpus.text_of), None, *compose_with)

    return profile_of


def train_noprofile(
    corpus: Corpus,
    settings: Settings,
    folder: Path,
    *,
    mask_seen: bool,
    device: str | None = None,
) -> ContrastiveResult:
    """Contrastive training on the raw histories of the training sessions.

    The step with the best NDCG on validation sessions is kept. `mask_seen`: items had before are
    neither learned nor ranked. `folder` keeps the run, and what was finished is read back.
    Raises TrainingError.
    """
    text_of = raw_history(corpus, settings)
    ids, texts = corpus.embedding_texts()
    return train_embedder(
        pairs_of(corpus, corpus.sessions.train, text_of, mask_seen=mask_seen),
        dict(zip(ids, texts, strict=True)),
        embedder_model(settings),
        settings.train.contrastive,
        folder,
        validate=ranking_validation(corpus, text_of, settings, mask_seen=mask_seen),
        device=device,
    )


def ranking_validation(
    corpus: Corpus,
    text_of: TextOf,
    settings: Settings,
    sessions: Sequence[Session] | None = None,
    *,
    mask_seen: bool,
) -> ValidateTower:
    """NDCG by the gate's metric on these sessions, or on some users' validation sessions.

    `mask_seen`: items had before are neither ranked nor wanted.
    """
    chosen = settings.train.evaluation.model_copy(update={"mask_seen": mask_seen})
    sessions = sessions or sample_users(corpus.sessions.validation, VALIDATION_USERS, chosen.seed)
    _, texts = corpus.embedding_texts()

    def value(embed: Embed) -> float:
        system = EmbeddedTextSystem(
            "validated", one_by_one(text_of), _Embedding(embed), embed(texts)
        )
        report = evaluate(corpus, [system], sessions, chosen)
        return float(np.mean(report.values("validated", settings.train.gate.metric)))

    return value


class _Embedding:
    """A function as a TextEmbedder."""

    model = "in training"

    def __init__(self, embed: Embed) -> None:
        self.embed = embed
        self.dimension = embed(["dimension"]).shape[1]


def _by_base(name: str, context: Context, texts_of: TextsOf) -> EmbeddedTextSystem:
    embedder: TextEmbedder = RememberingEmbedder(context.embedder)
    return EmbeddedTextSystem(name, texts_of, embedder, context.item_vectors)


def _raw_histories(context: Context) -> TextsOf:
    return one_by_one(raw_history(context.corpus, context.settings))


def _extractive_texts(context: Context) -> TextsOf:
    profile_of = extractive_profile_of(context.corpus, context.settings)
    return one_by_one(lambda session: profile_of(session).text)


def another_users(context: Context, texts_of: TextsOf) -> TextsOf:
    """The control: each session with the text of another of the users evaluated."""
    return shuffled(texts_of, context.evaluated, context.settings.train.evaluation.seed)
