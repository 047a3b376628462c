"""RLSO on a corpus: which sessions it learns from and by what decoder it is rewarded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import httpx

from models.engines.model_files import files_hash
from models.identity import digest
from models.ports import TextEmbedder, Vectors
from models.training_settings import TrainSettings
from trainer.data.cases import Case, Prompted, cases, prompted
from trainer.data.corpus import Corpus, newest_of_each, sample_users
from trainer.data.sessions import Session
from trainer.learning.policy import Policy, PolicyOptions
from trainer.learning.rlso import Rlso, RlsoResult
from trainer.learning.rollouts import LocalRollouts, RolloutSource
from trainer.learning.rollouts_vllm import VllmRollouts
from trainer.reward.reward_model import Rewarder, checked

# May change between a kill and the resumption: a run can be prolonged.
FREE_TO_CHANGE: Final = {"rounds", "checkpoint_every", "vllm_url"}
ADAPTERS: Final = "adapters"  # the policy as each round's server has it
ROUND_WITHIN_S: Final = 3_600.0  # a server on a small, busy machine takes minutes for a round


def run_rlso(
    corpus: Corpus,
    policy: Policy,
    embedder: TextEmbedder,
    settings: TrainSettings,
    folder: Path,
    *,
    start: Path | None,
    embedder_name: str,
    mask_seen: bool,
    max_tokens: int,
    items: Vectors | None = None,
    training: Sequence[Session] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> RlsoResult:
    """Train `policy` on the corpus' training sessions, validate on users of its validation split.

    `start`: folder of the adapter that `policy` begins with; `embedder_name` changes with the
    embedder's weights. `mask_seen`: whether what a user had is left out of the ranking that is
    rewarded, as `ranking.exclude_seen` leaves it out where releases serve. `max_tokens`: of a
    profile, as `profile.max_tokens` there. `items`: the catalogue under `embedder` in the order of
    `corpus.item_ids`, made here if not given. `training`: fewer sessions than all. `advance` is
    told of rounds done. Goes on from the checkpoint in `folder` if there is one. Raises as
    Rlso.train does.
    """
    chosen = settings.rlso
    vectors = embedder.embed(corpus.embedding_texts()[1]) if items is None else items
    composed = (checked(policy.count_tokens, max_tokens, stand_ins=some) for some in (False, True))
    rewarder, served = (Rewarder(embedder, vectors, compose, chosen) for compose in composed)

    def read(case: Case) -> Prompted | None:
        asked = prompted(case, corpus.spec, corpus.text_of)
        return asked if policy.fits(asked.prompt) else None

    sessions = corpus.sessions.train if training is None else training
    held_out = sample_users(corpus.sessions.validation, chosen.validation_users, chosen.seed)
    both = (
        cases(some, corpus.row_of, corpus.spec, mask_seen=mask_seen)
        for some in (sessions, newest_of_each(held_out))
    )
    identity = identity_of(
        corpus,
        policy.name,
        start,
        embedder_name,
        settings,
        policy.settings,
        max_tokens,
        mask_seen=mask_seen,
    )
    with rollouts_of(policy, settings, folder) as source:
        run = Rlso(policy, source, rewarder, served, read, chosen, folder, identity, advance)
        return run.train(*both)


@contextmanager
def rollouts_of(policy: Policy, settings: TrainSettings, folder: Path) -> Iterator[RolloutSource]:
    """Where the settings have rollouts made: a vLLM server, or the policy itself.

    A server gets the adapters from below `folder`, which it must see under the same path.
    """
    length = policy.settings.max_new_tokens
    if not settings.rlso.vllm_url:
        yield LocalRollouts(policy, length)
        return
    with (
        httpx.Client(base_url=settings.rlso.vllm_url, timeout=ROUND_WITHIN_S) as client,
        closing(VllmRollouts(policy, client, folder / ADAPTERS, length)) as source,
    ):
        yield source


def identity_of(
    corpus: Corpus,
    base: str,
    start: Path | None,
    embedder: str,
    settings: TrainSettings,
    policy: PolicyOptions,
    max_tokens: int,
    *,
    mask_seen: bool,
) -> str:
    """Name of what a run depends on: data, models and settings. `start`: its first adapter."""
    return digest(
        corpus.name,
        dict(sorted(corpus.counts.items())),
        base,
        files_hash(start) if start else "",
        embedder,
        settings.rlso.model_dump(mode="json", exclude=FREE_TO_CHANGE),
        policy.model_dump(mode="json"),
        settings.sessions.model_dump(mode="json"),
        mask_seen,
        max_tokens,
    )
