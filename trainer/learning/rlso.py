"""RLSO: reinforcement learning of the profile model on ranking quality (methods §8).

A round: K profiles for each of a few prompts, rewards from the frozen decoder, a few passes of
optimiser steps. Everything random in a round is a function of the seed and the round's number,
so a run that was killed goes on from its checkpoint with the same losses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from models.errors import TrainingError
from models.training_settings import RlsoSettings
from trainer.data.cases import Case, Prompted
from trainer.learning import checkpoints
from trainer.learning.objectives import varied
from trainer.learning.policy import Policy, Rollout
from trainer.learning.policy_steps import RolloutGroup, Step, learn
from trainer.learning.rollouts import RolloutSource
from trainer.pipeline.json_state import RunLog
from trainer.reward.reward_model import Answer, Judged, Rewarder
from trainer.reward.rewards import Rewards

LOG_FILE: Final = "rlso.jsonl"
BEST: Final = "best"  # adapter with the best reward on held-out users
LAST: Final = "last"
Read = Callable[[Case], Prompted | None]  # None: too long a prompt
BEFORE_THE_FIRST: Final = -1  # number of the "round" whose end is the start

logger = logging.getLogger(__name__)


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


@dataclass(slots=True)
class _Progress:
    round: int = 0
    steps: int = 0
    best: float = -np.inf
    validations: list[Validation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _RlsoBatch:
    asked: list[Prompted]
    rollouts: list[list[Rollout]]
    judged: Judged


class Rlso:
    """One run in its folder: log, checkpoint, best and last adapter."""

    def __init__(
        self,
        policy: Policy,
        source: RolloutSource,
        rewarder: Rewarder,
        served: Rewarder,
        read: Read,
        settings: RlsoSettings,
        folder: Path,
        identity: str,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`judge` gives the rewards, `served` what users get (logged at validations).

        `identity` names model, settings and data: another run's checkpoint is refused. `advance`
        is told of the rounds done.
        """
        self._policy = policy
        self._source = source
        self._rewarder, self._served = rewarder, served
        self._read = read
        self._settings = settings
        self._folder = folder
        self._identity = identity
        self._advance = advance
        self._log = RunLog(folder / LOG_FILE)
        self._optimiser = torch.optim.AdamW(
            policy.parameters(), lr=settings.learning_rate, weight_decay=0.0
        )
        self._done = _Progress()

    def train(self, training: Sequence[Case], held_out: Sequence[Case]) -> RlsoResult:
        """Run what is left of the rounds.

        Raises TrainingError without training cases, on a checkpoint of another run, or when a
        loss is not finite; EngineError when there are no rollouts to be had.
        """
        if not training:
            raise TrainingError("RLSO has no session to train on: the log holds too little")
        self._resume()
        if not self._done.validations:
            self._validate(held_out)
        while self._done.round < self._settings.rounds:
            self._round(training)
            self._advance(self._done.round)
            if self._due(self._settings.validate_every):
                self._validate(held_out)
            if self._due(self._settings.checkpoint_every):
                self._checkpoint()
        self._keep(LAST)
        return self._result()

    def _round(self, training: Sequence[Case]) -> None:
        number, started = self._done.round, time.monotonic()
        batch = self._collect(training, number)
        sampled = time.monotonic()
        groups = _groups(batch, self._settings.samples) if batch.asked else []
        seed = seed_of_round(self._settings.seed, number)
        for step in learn(self._policy, self._optimiser, groups, self._settings, seed):
            self._count(step, number)
        self._log.write(
            "round",
            number,
            **_told(batch.judged),
            spread=_spread(batch.judged.rewards, self._settings.samples),
            prompts=len(batch.asked),
            skipped=len(batch.asked) - len(groups),
            tokens=sum(len(r.completion_ids) for group in batch.rollouts for r in group),
            rollouts_s=sampled - started,
            learning_s=time.monotonic() - sampled,
        )
        logger.info("round %d: reward %.4f", number, batch.judged.rewards.means()["total"])
        self._done.round += 1

    def _collect(self, training: Sequence[Case], number: int) -> _RlsoBatch:
        chosen = cases_of_round(len(training), self._settings.prompts, self._settings.seed, number)
        return self._answered(
            self._readable(training[n] for n in chosen),
            self._settings.samples,
            self._settings.temperature,
            seed_of_round(self._settings.seed, number),
        )

    def _readable(self, chosen: Iterable[Case]) -> list[Prompted]:
        return [asked for asked in map(self._read, chosen) if asked is not None]

    def _answered(
        self, asked: list[Prompted], samples: int, temperature: float, seed: int
    ) -> _RlsoBatch:
        prompts = [prompt.prompt for prompt in asked]
        rollouts = self._source.sample(prompts, samples, temperature=temperature, seed=seed)
        return _RlsoBatch(asked, rollouts, self._rewarder.judge(asked, _answers(rollouts)))

    def _count(self, step: Step, number: int) -> None:
        """Log a step, and hold the optimiser's own count of steps against ours (methods §7.6)."""
        self._done.steps += 1
        taken = {int(state["step"]) for state in self._optimiser.state.values()}
        if taken != {self._done.steps}:
            raise TrainingError(f"the optimiser took {taken} steps in place of {self._done.steps}")
        self._log.write("step", number, step=self._done.steps, **asdict(step))

    def _validate(self, held_out: Sequence[Case]) -> None:
        asked = self._readable(held_out[: self._settings.validation_users])
        if not asked:
            return
        batch = self._answered(asked, 1, 0.0, self._settings.seed)
        judged, served = batch.judged, self._served.judge(asked, _answers(batch.rollouts))
        record = {
            **_told(judged),
            "served": float(served.rewards.ndcg.mean()),
            "shuffled": self._rewarder.shuffled(asked, judged),
            "users": {  # for paired intervals
                "reward": judged.rewards.total.tolist(),
                "ndcg": judged.rewards.ndcg.tolist(),
                "served": served.rewards.ndcg.tolist(),
            },
        }
        followed = self._done.round - 1
        self._log.write("validation", followed, **record)
        self._note(Validation.of({"round": followed, **record}))

    def _note(self, found: Validation) -> None:
        self._done.validations.append(found)
        logger.info("validation after %d rounds: reward %.4f", found.rounds, found.reward)
        if found.reward > self._done.best:
            self._done.best = found.reward
            self._keep(BEST)

    def _keep(self, name: str) -> None:
        self._policy.save(self._folder / name)

    def _due(self, every: int) -> bool:
        return self._done.round % every == 0 or self._done.round == self._settings.rounds

    def _checkpoint(self) -> None:
        checkpoints.save(
            self._folder,
            {
                "adapter": self._policy.state(),
                "optimiser": self._optimiser.state_dict(),
                "random": checkpoints.random_state(),
                "round": self._done.round,
                "steps": self._done.steps,
            },
            self._identity,
        )

    def _resume(self) -> None:
        state = checkpoints.load(self._folder, self._identity)
        if state is None:
            self._log.forget_from(BEFORE_THE_FIRST)
            return
        self._policy.load_state(state["adapter"])
        self._optimiser.load_state_dict(state["optimiser"])
        checkpoints.set_random_state(state["random"])
        self._log.forget_from(state["round"])
        validations = [Validation.of(record) for record in self._log.records("validation")]
        best = max((one.reward for one in validations), default=-np.inf)
        self._done = _Progress(state["round"], state["steps"], best, validations)
        logger.info("goes on after round %d", state["round"])

    def _result(self) -> RlsoResult:
        best = self._folder / BEST
        return RlsoResult(
            self._done.round,
            self._done.steps,
            tuple(self._done.validations),
            best if best.is_dir() else self._folder / LAST,
            next((record["loss"] for record in reversed([*self._log.records("step")])), None),
        )


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


def _told(judged: Judged) -> dict[str, Any]:
    means = dict(judged.rewards.means())
    return {"reward": means.pop("total"), **means, "figures": asdict(judged.figures)}
