"""Supervised training of the policy's adapter on written answers.

Loss: mean over the answers' tokens, the end of turn included, of -log p. It is summed over the
micro-batches of a step and divided by the step's tokens, so how a step is cut up changes nothing.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from models.errors import TrainingError
from models.identity import digest
from models.training_settings import WarmStartSettings
from trainer.data.target_answers import Example
from trainer.learning import checkpoints
from trainer.learning.packing import Rollout
from trainer.learning.policy import Policy
from trainer.pipeline.json_state import RunLog

WARM_UP: Final = 0.05  # share of `decay` in which the learning rate rises
LEAST_RATE: Final = 0.1  # of the learning rate, from the end of the cosine on
GRADIENT_NORM: Final = 1.0  # larger gradients are scaled down to it
LOG: Final = "warm-start.jsonl"
# May change between a kill and the resumption: a run can be prolonged, or ended early.
FREE_TO_CHANGE: Final = {"steps", "checkpoint_every"}

logger = logging.getLogger(__name__)


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
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> WarmStart:
    """Train to `settings.steps` optimiser steps; a run that was killed goes on where it was.

    `folder` takes the checkpoint and `warm-start.jsonl`, a line per step. `on_step(step, loss)`
    is called after each. Raises TrainingError if no example fits, a loss is not finite, or
    the checkpoint is of another run.
    """
    chosen = _fitting(policy, examples)
    run = _WarmStartRun(policy, chosen, settings, folder, _fitting(policy, validation, least=0))
    loss = run.resume()
    for step in range(run.step, settings.steps):
        loss = run.take_step(step)
        on_step(step + 1, loss)
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            run.keep(loss)
    return WarmStart(run.step, loss, len(chosen))


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


class _WarmStartRun:
    """A warm start under way."""

    def __init__(
        self,
        policy: Policy,
        examples: Sequence[Rollout],
        settings: WarmStartSettings,
        folder: Path,
        validation: Sequence[Rollout],
    ) -> None:
        self.step = 0
        self._policy = policy
        self._examples = examples
        self._validation = validation
        self._settings = settings
        self._folder = folder
        self._log = RunLog(folder / LOG)
        self._optimiser = torch.optim.AdamW(
            policy.parameters(), lr=settings.learning_rate, weight_decay=0.0
        )
        self._identity = digest(
            policy.name,
            settings.model_dump(mode="json", exclude=FREE_TO_CHANGE),
            [rollout.completion_ids for rollout in examples],
        )

    def resume(self) -> float:
        """Go to the last checkpoint, if there is one; its last loss, else nan."""
        held = checkpoints.load(self._folder, self._identity)
        if held is None:
            self._log.forget_from(0)
            return math.nan
        self._policy.load_state(held["adapter"])
        self._optimiser.load_state_dict(held["optimiser"])
        self.step = int(held["step"])
        self._log.forget_from(self.step)
        logger.info("warm start goes on after step %d", self.step)
        return float(held["loss"])

    def keep(self, loss: float) -> None:
        """Write the checkpoint and, if there are validation examples, their loss."""
        if self._validation:
            self._log.write("validation", self.step - 1, loss=self._validation_loss())
        state = {
            "adapter": self._policy.state(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "loss": loss,
        }
        checkpoints.save(self._folder, state, self._identity)

    def take_step(self, step: int) -> float:
        """One optimiser step; its loss before the step."""
        started = time.perf_counter()
        rate = self._settings.learning_rate * _rate(step, self._settings.decay)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        rollouts = [self._examples[n] for n in _batch(step, len(self._examples), self._settings)]
        loss = self._backward(rollouts)
        norm = torch.nn.utils.clip_grad_norm_(self._policy.parameters(), GRADIENT_NORM)
        if not math.isfinite(loss) or not torch.isfinite(norm):
            raise TrainingError(
                f"warm start: loss {loss} or gradient norm {norm} at step {step} is not finite;"
                " lower train.warm_start.learning_rate"
            )
        self._optimiser.step()
        self.step = step + 1
        figures: dict[str, Any] = {"loss": loss, "rate": rate, "gradient": float(norm)}
        self._log.write("step", step, **figures, seconds=time.perf_counter() - started)
        return loss

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


def _rate(step: int, decay: int) -> float:
    """Share of the learning rate at `step`: a linear rise, then a cosine down to LEAST_RATE."""
    rising = max(1, round(WARM_UP * decay))
    if step < rising:
        return (step + 1) / rising
    done = min(1.0, (step - rising) / max(1, decay - rising))
    return LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2
