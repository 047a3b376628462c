"""Systems that rank by profiles which a language model wrote, by name.

    profile                  zero-shot: the model and the embedder as the settings name them
    profile:FOLDER           with the adapter and the embedder found in FOLDER: models/starter, a
                             release, a stage of a training run
    …+shuffled               the control: another user's profile
    …+sasrec                 mixed with the sequence model, weights fitted on validation sessions

Answers are kept under data_dir/learned, so the control and a second run write nothing again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from models.engines.model_files import language_model
from models.errors import TrainingError
from models.ports import TextEmbedder, Vectors
from models.profile.assembly import Composed
from trainer.data.sessions import Session
from trainer.data.vector_cache import cached_vectors
from trainer.evaluation.context import Context
from trainer.evaluation.systems import System
from trainer.gate.release_evaluator import profiles_of
from trainer.learning.builders import another_users, extractive_profile_of, with_sasrec
from trainer.learning.policy import Policy, policy_options
from trainer.learning.policy_answers import answers_file, served_otherwise
from trainer.learning.profile_systems import (
    EmbeddedTextSystem,
    ProfilesOf,
    RememberingEmbedder,
    WrittenProfileSystem,
    texts_of,
)
from trainer.learning.text_tower import TextTower

SHUFFLED: Final = "+shuffled"
SASREC: Final = "+sasrec"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Learned:
    """What a folder holds of a release; None: as the settings name it."""

    adapter: Path | None = None
    embedder: Path | None = None

    @classmethod
    def of(cls, folder: Path) -> Learned:
        """Adapter (PEFT) and embedder (sentence-transformers) in a folder or just below it.

        Raises TrainingError if there is neither.
        """
        found = cls(
            _holding("adapter_config.json", folder, folder / "adapter"),
            _holding("modules.json", folder, folder / "embedder"),
        )
        if found == cls():
            raise TrainingError(f"{folder} holds neither an adapter nor an embedder")
        return found


def _holding(name: str, *folders: Path) -> Path | None:
    return next((folder for folder in folders if (folder / name).is_file()), None)


def profile_system(name: str, context: Context) -> System:
    """The system of a name of the forms above. Raises TrainingError."""
    if name.endswith(SASREC):
        return with_sasrec(name, partial(profile_system, name.removesuffix(SASREC)), context)
    plain = name.removesuffix(SHUFFLED)
    _, _, folder = plain.partition(":")
    learned = Learned.of(Path(folder)) if folder else Learned()
    written, ranked_by = written_profiles(context, learned), _embedder(context, learned)
    if plain == name:
        return WrittenProfileSystem(name, written, *ranked_by)
    return EmbeddedTextSystem(name, another_users(context, texts_of(written)), *ranked_by)


def written_profiles(context: Context, learned: Learned) -> ProfilesOf:
    """Profiles as the live system would write them; extractive where a prompt is too long."""
    corpus, settings = context.corpus, context.settings
    source = language_model(settings)
    policy = Policy.load(source, policy_options(settings), adapter=learned.adapter)
    kept = answers_file(
        settings.data_dir / "learned",
        source,
        learned.adapter,
        settings.profile.max_new_tokens,
    )
    extractive = extractive_profile_of(corpus, settings)
    if sampled := served_otherwise(settings.profile):
        logger.warning("%s", sampled)

    def written(sessions: Sequence[Session]) -> list[Composed]:
        found = profiles_of(policy, corpus, sessions, settings.profile.max_tokens, kept)
        return [found.get(one.key) or extractive(one) for one in sessions]

    return written


def _embedder(context: Context, learned: Learned) -> tuple[TextEmbedder, Vectors]:
    """The embedder and its vectors of the catalogue."""
    if learned.embedder is None:
        return RememberingEmbedder(context.embedder), context.item_vectors
    tower = TextTower(learned.embedder, context.settings.train.contrastive)
    _, texts = context.corpus.embedding_texts()
    items = cached_vectors(texts, lambda: tower, tower.fingerprint(), context.cache)
    return RememberingEmbedder(tower), items
