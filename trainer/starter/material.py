"""What the starter release is trained and measured on: data/sample, and the settings of the run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from models.profile.prompts import render
from models.schemas import ProfileRequest
from models.settings import Settings
from models.training_settings import SessionSettings, TrainSettings, WarmStartSettings
from trainer.data.corpus import Corpus
from trainer.data.held_out import held_out
from trainer.data.sessions import Session
from trainer.data.target_answers import Example, WordWeights, examples, requests

T = TypeVar("T")

SAMPLE: Final = Path(__file__).resolve().parents[2] / "data" / "sample"
SEED: Final = 0
VALIDATION: Final = 12  # examples whose loss is logged; nothing is chosen by it
MEASURED: Final = 200  # prompts of held-out users

TRAIN: Final = TrainSettings(
    sessions=SessionSettings(per_user=8, seed=SEED),
    # About a quarter of an hour of one core.
    warm_start=WarmStartSettings(
        steps=120,
        decay=160,
        batch=4,
        micro_batch=4,
        learning_rate=1e-3,
        checkpoint_every=40,
        seed=SEED,
    ),
)


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that a run reads."""

    settings: Settings
    corpus: Corpus
    training: list[Example]
    training_users: int
    validation: list[Example]
    measured: list[ProfileRequest]  # of held-out users, distinct prompts


def read_material(settings: Settings) -> Material:
    """Read the sample. The windows and models are those of the defaults, whatever is set here."""
    usual = settings.model_copy(
        update={
            name: type(getattr(settings, name))() for name in ("windows", "profile", "embedder")
        }
        | {"train": TRAIN}
    )
    corpus = Corpus.from_folder(SAMPLE, usual)
    learned = [one for one in corpus.sessions.train if not held_out(one.user_id)]
    later = [
        one for one in (*corpus.sessions.validation, *corpus.sessions.test) if held_out(one.user_id)
    ]
    weights = WordWeights.of(map(corpus.text_of, corpus.item_ids))
    return Material(
        settings=usual,
        corpus=corpus,
        training=_examples(corpus, learned, weights),
        training_users=len({one.user_id for one in learned}),
        validation=_drawn(_examples(corpus, later, weights), VALIDATION),
        measured=_drawn(_distinct(corpus, later), MEASURED),
    )


def _examples(corpus: Corpus, sessions: list[Session], weights: WordWeights) -> list[Example]:
    return examples(requests(sessions, corpus.spec, corpus.text_of), weights)


def _distinct(corpus: Corpus, sessions: list[Session]) -> list[ProfileRequest]:
    by_prompt: dict[str, ProfileRequest] = {}
    for request in requests(sessions, corpus.spec, corpus.text_of):
        by_prompt.setdefault(render(request), request)
    return list(by_prompt.values())


def _drawn(found: list[T], most: int) -> list[T]:
    return random.Random(SEED).sample(found, min(most, len(found)))
