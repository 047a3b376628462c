"""RLSO: reinforcement learning of the profile model on ranking quality (methods §8).

A round: K profiles for each of a few prompts, their rewards from the frozen decoder, a few passes
of optimiser steps that minimise what objectives.py holds. Everything random in a round is a
function of the seed and the round's number.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from models.engines.model_files import files_hash
from models.errors import TrainingError
from models.identity import digest
from models.ports import TextEmbedder, Vectors
from models.training_settings import RlsoSettings, TrainSettings
from trainer.data.cases import Case, Prompted, cases, prompted
from trainer.data.corpus import Corpus, newest_of_each, sample_users
from trainer.data.sessions import Session
from trainer.learning.loop import LoopOptions, OnStep, Task, train
from trainer.learning.objectives import RolloutGroup, learn, optimiser_of, varied
from trainer.learning.policy import Policy, PolicyOptions, Rollout
from trainer.learning.rollouts import RolloutSource, rollouts_of
from trainer.pipeline.json_state import RunLog
from trainer.reward.rewarder import Answer, Judged, Rewarder, checked
from trainer.reward.rewards import Rewards

LOG_FILE: Final = "rlso.jsonl"
BEST: Final = "best"  # adapter with the best reward on held-out users
LAST: Final = "last"
# May change between a kill and the resumption: a run can be prolonged.
FREE_TO_CHANGE: Final = {"rounds", "checkpoint_every", "vllm_url"}
Read = Callable[[Case], Prompted | None]  # None: too long a prompt

logger = logging.getLogger(__name__)


@dataclass
class RlsoTask(Task):
    """One run for the training loop, by rounds."""

    policy: Policy
    source: RolloutSource
    rewarder: Rewarder  # of the rewards
    served: Rewarder  # of what users get, logged at validations
    read: Read
    settings: RlsoSettings
    folder: Path  # takes log, checkpoint, best and last adapter
    identity: str
    training: Sequence[Case]
    held_out: Sequence[Case]

    name = "RLSO"

    def __post_init__(self) -> None:
        """Raises TrainingError without training cases."""
        if not self.training:
            raise TrainingError("RLSO has no session to train on: the log holds too little")
        self.log = RunLog(self.folder / LOG_FILE)
        self.optimiser = optimiser_of(self.policy, self.settings)

    def step(self, number: int) -> float:
        """A round; the loss of its last optimiser step, nan if no prompt taught anything."""
        started, loss = time.monotonic(), math.nan
        seed, samples = seed_of_round(self.settings.seed, number), self.settings.samples
        batch = self._answered(self._prompts(number), samples, self.settings.temperature, seed)
        sampled = time.monotonic()
        groups = _groups(batch, samples) if batch.asked else []
        for step in learn(self.policy, self.optimiser, groups, self.settings, seed):
            self.log.write("step", number, step=self.optimiser.taken, **asdict(step))
            loss = step.loss
        self.log.write(
            "round",
            number,
            **_figures(batch.judged),
            spread=_spread(batch.judged.rewards, samples),
            prompts=len(batch.asked),
            skipped=len(batch.asked) - len(groups),
            tokens=sum(len(r.completion_ids) for group in batch.rollouts for r in group),
            rollouts_s=sampled - started,
            learning_s=time.monotonic() - sampled,
        )
        logger.info("round %d: reward %.4f", number, batch.judged.rewards.means()["total"])
        return loss

    def _prompts(self, number: int) -> list[Prompted]:
        settings = self.settings
        chosen = cases_of_round(len(self.training), settings.prompts, settings.seed, number)
        return self._readable(self.training[n] for n in chosen)

    def _readable(self, chosen: Iterable[Case]) -> list[Prompted]:
        return [asked for asked in map(self.read, chosen) if asked is not None]

    def _answered(
        self, asked: list[Prompted], samples: int, temperature: float, seed: int
    ) -> _RlsoBatch:
        prompts = [prompt.prompt for prompt in asked]
        rollouts = self.source.sample(prompts, samples, temperature=temperature, seed=seed)
        return _RlsoBatch(asked, rollouts, self.rewarder.judge(asked, _answers(rollouts)))

    def validate(self, done: int) -> float | None:
        """The mean reward of greedy profiles of held-out users; None where there are none."""
        asked = self._readable(self.held_out[: self.settings.validation_users])
        if not asked:
            return None
        batch = self._answered(asked, 1, 0.0, self.settings.seed)
        judged, served = batch.judged, self.served.judge(asked, _answers(batch.rollouts))
        figures = _figures(judged)
        self.log.write(
            "validation",
            done - 1,
            **figures,
            served=float(served.rewards.ndcg.mean()),
            shuffled=self.rewarder.shuffled(asked, judged),
            users={  # for paired intervals
                "reward": judged.rewards.total.tolist(),
                "ndcg": judged.rewards.ndcg.tolist(),
                "served": served.rewards.ndcg.tolist(),
            },
        )
        return float(figures["reward"])

    def keep_best(self) -> None:
        """See Task."""
        self.policy.save(self.folder / BEST)

    def weights(self) -> Mapping[str, Tensor]:
        """See Task."""
        return self.policy.state()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """See Task."""
        self.policy.load_state(weights)


@dataclass(frozen=True, slots=True)
class _RlsoBatch:
    asked: list[Prompted]
    rollouts: list[list[Rollout]]
    judged: Judged


# What a round of a run is made of, as a function of the seed and the round's number alone.


def cases_of_round(cases: int, prompts: int, seed: int, number: int) -> list[int]:
    """Which of `cases` a round takes: in one permutation after another, none is left out."""
    size = min(prompts, cases)
    places = range(number * size, (number + 1) * size)
    return [_permutation(cases, seed, place // cases)[place % cases] for place in places]


def seed_of_round(seed: int, number: int) -> int:
    """A seed of the round's own."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _permutation(cases: int, seed: int, turn: int) -> list[int]:
    return np.random.default_rng((seed, turn)).permutation(cases).tolist()


def _groups(batch: _RlsoBatch, samples: int) -> list[RolloutGroup]:
    """The prompts whose samples differ in reward."""
    rewards = torch.from_numpy(batch.judged.rewards.total).reshape(-1, samples).float()
    telling = varied(rewards).tolist()
    return [
        RolloutGroup(rollouts, row)
        for rollouts, row, tells in zip(batch.rollouts, rewards, telling, strict=True)
        if tells
    ]


def _spread(rewards: Rewards, samples: int) -> dict[str, float]:
    """By part, the mean over prompts of the standard deviation within a prompt.

    That of the total is what there is to learn from.
    """
    parts = {name: part.reshape(-1, samples) for name, part in asdict(rewards).items()}
    return {
        name: float(part.std(axis=1).mean()) if len(part) else 0.0 for name, part in parts.items()
    }


def _answers(rollouts: Sequence[Sequence[Rollout]]) -> list[list[Answer]]:
    return [
        [Answer(one.text, len(one.completion_ids), one.finished) for one in group]
        for group in rollouts
    ]


def _figures(judged: Judged) -> dict[str, Any]:
    means = dict(judged.rewards.means())
    return {"reward": means.pop("total"), **means, "figures": asdict(judged.figures)}


@dataclass(frozen=True, slots=True)
class Validation:
    """Greedy profiles of held-out users."""

    rounds: int  # of training before it
    reward: float
    ndcg: float
    shuffled: float  # NDCG of another user's profile

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Validation:
        """From a record of the log, where it stands under the round that it followed."""
        return cls(record["round"] + 1, *(record[name] for name in ("reward", "ndcg", "shuffled")))


@dataclass(frozen=True, slots=True)
class RlsoResult:
    """What a finished run leaves. Validations begin with the policy before training."""

    rounds: int
    steps: int  # optimiser steps
    validations: tuple[Validation, ...]
    adapter: Path  # the best by validation, or the last without one
    loss: float | None  # of the last optimiser step; None without one


def train_rlso(task: RlsoTask, on_step: OnStep = lambda _done, _loss: None) -> RlsoResult:
    """Run what is left of the rounds; `on_step` is told of each.

    Raises TrainingError on a checkpoint of another run or when a loss is not finite, EngineError
    when there are no rollouts to be had.
    """
    rounds, every = task.settings.rounds, task.settings.validate_every
    options = LoopOptions(rounds, every, task.settings.checkpoint_every, validate_first=True)
    progress = train(task, options, task.folder, on_step)
    task.policy.save(task.folder / LAST)
    losses = (loss for loss in reversed(progress.losses) if not math.isnan(loss))
    return RlsoResult(
        progress.step,
        task.optimiser.taken,
        tuple(map(Validation.of, task.log.records("validation"))),
        task.folder / (LAST if progress.best_step is None else BEST),
        next(losses, None),
    )


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
    on_step: OnStep = lambda _done, _loss: None,
) -> RlsoResult:
    """Train `policy` on the corpus' training sessions, validate on users of its validation split.

    `start`: folder of the adapter that `policy` begins with; `embedder_name` changes with the
    embedder's weights. `mask_seen`: whether what a user had is left out of the ranking that is
    rewarded, as `ranking.exclude_seen` leaves it out where releases serve. `max_tokens`: of a
    profile, as `profile.max_tokens` there. `items`: the catalogue under `embedder` in the order of
    `corpus.item_ids`, made here if not given. `training`: fewer sessions than all. `on_step` is
    told of rounds. Resumes from the checkpoint in `folder` if there is one. Raises TrainingError
    without a session to train on, and as `train_rlso` does.
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
    with rollouts_of(policy, chosen.vllm_url, folder) as source:
        decoder = rewarder, served, read
        task = RlsoTask(policy, source, *decoder, chosen, folder, identity, *both)
        return train_rlso(task, on_step)


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
