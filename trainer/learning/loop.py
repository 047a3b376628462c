"""The training loop of all learning phases: resume, step, validate, keep the best, checkpoint.

    progress = train(task, LoopOptions(steps=120, validate_every=30, checkpoint_every=50), folder)

A phase is a Task. Its step is an optimiser step (warm start, CL), a round of rollouts (RLSO) or an
epoch (SASRec). What is random in a step is a function of a seed and the step's number, or comes
from torch's generators, whose state is in the checkpoint. So a run that was killed repeats bit for
bit what it had done since its last checkpoint.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from models.errors import TrainingError
from trainer.learning import checkpoints
from trainer.pipeline.json_state import RunLog

OnStep = Callable[[int, float], None]  # steps done, loss of the last one

logger = logging.getLogger(__name__)


class CountedOptimiser:
    """A torch optimiser that clips, stops at what is not finite, and whose steps are counted.

    The count is held against the optimiser's own (methods §7.6).
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        setting: str,
        gradient_norm: float = math.inf,
    ) -> None:
        """`setting`: the learning rate's name, for errors; larger gradients get `gradient_norm`."""
        self.taken = 0
        self._optimiser = optimiser
        self._setting = setting
        self._gradient_norm = gradient_norm

    def set_rate(self, rate: float) -> None:
        """The learning rate from the next step on."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def step(self, loss: float) -> float:
        """Step on the gradients that were accumulated, and clear them; their norm before clipping.

        Raises TrainingError if the loss or the norm is not finite; then no step is made.
        """
        learned = [weight for group in self._optimiser.param_groups for weight in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(learned, self._gradient_norm))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(
                f"after {self.taken} optimiser steps the loss {loss} or the gradient's norm {norm} "
                f"is not finite; lower {self._setting}"
            )
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.taken += 1
        return norm

    def check_count(self) -> None:
        """Raises TrainingError if the optimiser made other steps than were asked of it."""
        made = max((int(state["step"]) for state in self._optimiser.state.values()), default=0)
        if made != self.taken:
            raise TrainingError(f"the optimiser made {made} steps where {self.taken} were counted")

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"taken": self.taken, "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state_dict` was called."""
        self.taken = state["taken"]
        self._optimiser.load_state_dict(state["optimiser"])


class Task(Protocol):
    """One learning phase, for `train`."""

    name: str  # for people
    identity: str  # digest of all that the run depends on: data, models, settings
    log: RunLog
    optimiser: CountedOptimiser

    def step(self, number: int) -> float:
        """Train step `number`, from 0, and log it. Its loss; nan if there was nothing to learn."""
        ...

    def validate(self, done: int) -> float | None:
        """Measure and log the weights after `done` steps; greater is better.

        None: there is nothing that could tell which weights are best, so the last ones are kept.
        """
        ...

    def keep_best(self) -> None:
        """Write the weights as the best so far, in place of those before, atomically.

        Called only after a validation that has a value.
        """
        return  # for phases whose validations have none

    def weights(self) -> Mapping[str, Tensor]:
        """What learns, by name, for checkpoints."""
        ...

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Go back to where `weights` was called."""
        ...


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """When the loop validates, writes a checkpoint and ends. After the last step it does all."""

    steps: int
    validate_every: int
    checkpoint_every: int
    validate_first: bool = False  # also what training begins with, as step 0
    patience: int | None = None  # steps without a better validation after which training stops


@dataclass(slots=True)
class Progress:
    """What a run has done so far; all of it is in the checkpoint."""

    losses: list[float] = field(default_factory=list)  # by step
    validations: dict[int, float] = field(default_factory=dict)  # by steps done before
    best_step: int | None = None  # after how many steps; the first of equal ones

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    def note(self, value: float) -> bool:
        """Note a validation after the last step; whether it is the best."""
        best = -math.inf if self.best_step is None else self.validations[self.best_step]
        self.validations[self.step] = value
        if value > best:
            self.best_step = self.step
        return value > best

    def finished(self, options: LoopOptions) -> bool:
        """Whether the last step is done, or patience is at its end."""
        if options.patience is not None and self.step - (self.best_step or 0) >= options.patience:
            return True
        return self.step >= options.steps


def train(
    task: Task,
    options: LoopOptions,
    folder: Path,
    on_step: OnStep = lambda _done, _loss: None,
) -> Progress:
    """Train to the last step, from the checkpoint in `folder` if there is one.

    The task then has the weights of the last step; those of `best_step` are where `keep_best` put
    them. Raises CheckpointMismatch if the checkpoint is of another run, TrainingError if it
    cannot be read or written, or as the task does.
    """
    progress = _resumed(task, folder)
    if options.validate_first and not progress.validations:
        _validate(task, progress)
    while not progress.finished(options):
        progress.losses.append(task.step(progress.step))
        task.optimiser.check_count()
        on_step(progress.step, progress.losses[-1])
        last = progress.step == options.steps
        if last or progress.step % options.validate_every == 0:
            _validate(task, progress)
        if progress.finished(options) or progress.step % options.checkpoint_every == 0:
            _keep(task, progress, folder)
    return progress


def _validate(task: Task, progress: Progress) -> None:
    value = task.validate(progress.step)
    if value is None:
        return
    logger.info("%s: validation after step %d is %.5f", task.name, progress.step, value)
    if progress.note(value):
        task.keep_best()


def _keep(task: Task, progress: Progress, folder: Path) -> None:
    state = {
        "weights": dict(task.weights()),
        "optimiser": task.optimiser.state_dict(),
        "random": checkpoints.random_state(),
        "progress": asdict(progress),
    }
    checkpoints.save(folder, state, task.identity)


def _resumed(task: Task, folder: Path) -> Progress:
    held = checkpoints.load(folder, task.identity)
    if held is None:
        task.log.forget_from(-1)  # what is validated before step 0 is logged under it
        return Progress()
    task.load_weights(held["weights"])
    task.optimiser.load_state_dict(held["optimiser"])
    checkpoints.set_random_state(held["random"])
    progress = Progress(**held["progress"])
    task.log.forget_from(progress.step)
    logger.info("%s resumes after step %d", task.name, progress.step)
    return progress
