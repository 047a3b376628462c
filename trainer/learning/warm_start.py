"""Supervised training of the policy's adapter on written answers.

Loss: mean over the answers' tokens, the end of turn included, of -log p. It is summed over the
micro-batches of a step and divided by the step's tokens, so how a step is cut up changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from models.errors import TrainingError
from models.identity import digest
from models.training_settings import WarmStartSettings
from trainer.data.target_answers import Example
from trainer.learning import loop
from trainer.learning.loop import CountedOptimiser, LoopOptions, OnStep, Task
from trainer.learning.packing import Rollout
from trainer.learning.policy import Policy
from trainer.learning.schedules import cosine_with_warmup
from trainer.pipeline.json_state import RunLog

WARM_UP: Final = 0.05  # share of `decay` in which the learning rate rises
LEAST_RATE: Final = 0.1  # of the learning rate, from the end of the cosine on
GRADIENT_NORM: Final = 1.0  # larger gradients are scaled down to it
LOG: Final = "warm-start.jsonl"
# May change between a kill and the resumption: a run can be prolonged, or ended early.
FREE_TO_CHANGE: Final = {"steps", "checkpoint_every"}


@dataclass(frozen=True, slots=True)
class WarmStart:
    """How a warm start went."""

    steps: int  # of the optimiser, over all runs of it
    loss: float  # of the last step
    examples: int


def train(
    policy: Policy,
    examples: Sequence[Example],
    settings: WarmStartSettings,
    folder: Path,
    *,
    validation: Sequence[Example] = (),
    on_step: OnStep = lambda _step, _loss: None,
) -> WarmStart:
    """Train to `settings.steps` optimiser steps; a run that was killed resumes where it was.

    `folder` takes the checkpoint and `warm-start.jsonl`, a line per step. `on_step(step, loss)`
    is called after each. Raises TrainingError if no example fits, a loss is not finite, or
    the checkpoint is of another run.
    """
    chosen = _fitting(policy, examples)
    task = _WarmStartTask(policy, chosen, settings, folder, _fitting(policy, validation, least=0))
    every = settings.checkpoint_every
    progress = loop.train(task, LoopOptions(settings.steps, every, every), folder, on_step)
    loss = progress.losses[-1] if progress.losses else math.nan
    return WarmStart(progress.step, loss, len(chosen))


def _fitting(policy: Policy, examples: Sequence[Example], least: int = 1) -> list[Rollout]:
    """The examples as tokens; prompts that are too long and answers cut off are left out."""
    wanted = [example for example in examples if policy.fits(example.prompt)]
    written = policy.completion_tokens(
        [example.prompt for example in wanted], [example.answer for example in wanted]
    )
    kept = [rollout for rollout in written if rollout.finished]
    if len(kept) < least:
        raise TrainingError(
            f"none of {len(examples)} examples fits train.policy.max_prompt_tokens and"
            " profile.max_new_tokens: import more events, or raise them"
        )
    return kept


class _WarmStartTask(Task):
    """A warm start for the training loop, by optimiser steps."""

    name = "warm start"

    def __init__(
        self,
        policy: Policy,
        examples: Sequence[Rollout],
        settings: WarmStartSettings,
        folder: Path,
        validation: Sequence[Rollout],
    ) -> None:
        self._policy = policy
        self._examples = examples
        self._validation = validation
        self._settings = settings
        self.log = RunLog(folder / LOG)
        self.optimiser = CountedOptimiser(
            torch.optim.AdamW(policy.parameters(), lr=settings.learning_rate, weight_decay=0.0),
            "train.warm_start.learning_rate",
            GRADIENT_NORM,
        )
        self.identity = digest(
            policy.name,
            settings.model_dump(mode="json", exclude=FREE_TO_CHANGE),
            [rollout.completion_ids for rollout in examples],
        )

    def step(self, number: int) -> float:
        """One optimiser step; its loss before the step."""
        started = time.perf_counter()
        rate = _rate(number, self._settings)
        self.optimiser.set_rate(rate)
        chosen = _batch(number, len(self._examples), self._settings)
        loss = self._backward([self._examples[n] for n in chosen])
        norm = self.optimiser.step(loss)
        seconds = time.perf_counter() - started
        self.log.write("step", number, loss=loss, rate=rate, gradient=norm, seconds=seconds)
        return loss

    def validate(self, done: int) -> None:
        """Log the loss of held-out examples. It does not choose: the last adapter is kept."""
        if self._validation:
            self.log.write("validation", done - 1, loss=self._validation_loss())

    def weights(self) -> Mapping[str, Tensor]:
        """See Task."""
        return self._policy.state()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """See Task."""
        self._policy.load_state(weights)

    def _backward(self, rollouts: Sequence[Rollout]) -> float:
        tokens = sum(len(rollout.completion_ids) for rollout in rollouts)
        total = 0.0
        for part in _micro_batches(rollouts, self._settings.micro_batch):
            loss = -self._policy.log_probs(part).sum() / tokens
            loss.backward()
            total += float(loss.detach())
        return total

    @torch.no_grad()
    def _validation_loss(self) -> float:
        tokens = sum(len(rollout.completion_ids) for rollout in self._validation)
        parts = _micro_batches(self._validation, self._settings.micro_batch)
        return sum(-float(self._policy.log_probs(part).sum()) for part in parts) / tokens


def _batch(step: int, examples: int, settings: WarmStartSettings) -> Iterator[int]:
    """Places of a step's examples: each epoch is a permutation of its own, drawn from the seed."""
    permutations: dict[int, list[int]] = {}
    for drawn in range(step * settings.batch, (step + 1) * settings.batch):
        epoch, place = divmod(drawn, examples)
        if epoch not in permutations:
            generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
            permutations[epoch] = torch.randperm(examples, generator=generator).tolist()
        yield permutations[epoch][place]


def _micro_batches(rollouts: Sequence[Rollout], size: int) -> Iterator[list[Rollout]]:
    """Rollouts of like length together: less padding."""
    ordered = sorted(rollouts, key=lambda one: len(one.prompt_ids) + len(one.completion_ids))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _rate(step: int, settings: WarmStartSettings) -> float:
    """The learning rate of a step, from 0."""
    warmup = max(1, round(WARM_UP * settings.decay))
    return cosine_with_warmup(
        step,
        peak=settings.learning_rate,
        warmup=warmup,
        end=settings.decay,
        least=LEAST_RATE,
    )
