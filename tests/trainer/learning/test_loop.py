"""The loop around any phase: when it validates, keeps, checkpoints, resumes and stops."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from models.errors import CheckpointMismatch, TrainingError
from trainer.learning.loop import CountedOptimiser, LoopOptions, Progress, train
from trainer.pipeline.json_state import RunLog


class Killed(Exception):
    """Stands for SIGKILL."""


class NoisyTask:
    """A linear layer that learns under dropout, so that its losses depend on torch's generator."""

    name = "noisy"

    def __init__(
        self, folder: Path, values: Mapping[int, float] | None = None, identity: str = "run"
    ) -> None:
        torch.manual_seed(0)
        self.identity = identity
        self.log = RunLog(folder / "log.jsonl")
        self.model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 1))
        adam = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.optimiser = CountedOptimiser(adam, "a.setting", gradient_norm=1.0)
        self.values = values or {}
        self.calls: list[str] = []
        self.kill_at = ""

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.kill_at:
            raise Killed

    def step(self, number: int) -> float:
        self._called(f"step {number}")
        loss: Tensor = self.model(torch.ones(4, 3)).square().mean()
        loss.backward()
        self.optimiser.step(loss.item())
        self.log.write("step", number, loss=loss.item())
        return loss.item()

    def validate(self, done: int) -> float | None:
        self._called(f"validate {done}")
        self.log.write("validation", done - 1)
        return self.values.get(done)

    def keep_best(self) -> None:
        self._called("keep")

    def weights(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(weights)


def options(**changes: Any) -> LoopOptions:
    return LoopOptions(**{"steps": 7, "validate_every": 3, "checkpoint_every": 2, **changes})


def records(folder: Path) -> list[dict[str, Any]]:
    return list(RunLog(folder / "log.jsonl").records())


def outcome(task: NoisyTask, progress: Progress) -> tuple[Any, ...]:
    weights = {name: value.tolist() for name, value in task.weights().items()}
    return progress, weights, task.optimiser.taken, torch.rand(3).tolist()


VALUES = {0: 0.1, 3: 0.5, 6: 0.2, 7: 0.5}
MOMENTS = [f"step {n}" for n in range(7)] + [f"validate {n}" for n in VALUES] + ["keep"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_at_any_moment_ends_as_one_that_never_was(
    tmp_path: Path, moment: str
) -> None:
    whole = NoisyTask(tmp_path / "whole", VALUES)
    expected = outcome(whole, train(whole, options(validate_first=True), tmp_path / "whole"))
    killed = NoisyTask(tmp_path / "killed", VALUES)
    killed.kill_at = moment
    with pytest.raises(Killed):
        train(killed, options(validate_first=True), tmp_path / "killed")
    torch.rand(100)  # whatever happened in between

    resumed = NoisyTask(tmp_path / "killed", VALUES)
    found = outcome(resumed, train(resumed, options(validate_first=True), tmp_path / "killed"))

    assert found == expected
    assert records(tmp_path / "killed") == records(tmp_path / "whole")


def test_the_order_of_a_run(tmp_path: Path) -> None:
    task, told = NoisyTask(tmp_path, VALUES), []

    progress = train(task, options(validate_first=True), tmp_path, lambda *step: told.append(step))

    assert task.calls == [
        *("validate 0", "keep", "step 0", "step 1", "step 2", "validate 3", "keep"),
        *("step 3", "step 4", "step 5", "validate 6", "step 6", "validate 7"),
    ]
    assert told == list(enumerate(progress.losses, 1))
    assert (progress.best_step, progress.validations) == (3, VALUES)  # the first of equals


def test_without_a_value_no_step_is_the_best(tmp_path: Path) -> None:
    task = NoisyTask(tmp_path)

    progress = train(task, options(), tmp_path)

    assert [call for call in task.calls if "validate" in call] == [
        "validate 3",
        "validate 6",
        "validate 7",
    ]
    assert "keep" not in task.calls
    assert (progress.best_step, progress.validations) == (None, {})


def test_a_finished_run_does_nothing_and_a_longer_one_resumes_it(tmp_path: Path) -> None:
    first = train(NoisyTask(tmp_path, VALUES), options(), tmp_path)
    again, longer = NoisyTask(tmp_path, VALUES), NoisyTask(tmp_path, VALUES)

    assert train(again, options(), tmp_path) == first
    assert again.calls == []
    assert train(longer, options(steps=9), tmp_path).losses[:7] == first.losses
    assert longer.calls == ["step 7", "step 8", "validate 9"]


def test_a_run_stops_when_its_patience_is_at_its_end_and_stays_stopped(tmp_path: Path) -> None:
    values = {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.3, 5: 0.9}
    patient = options(validate_every=1, checkpoint_every=100, patience=2)

    progress = train(NoisyTask(tmp_path, values), patient, tmp_path)
    again = NoisyTask(tmp_path, values)

    assert (progress.step, progress.best_step) == (4, 2)
    assert train(again, patient, tmp_path) == progress
    assert again.calls == []


@given(st.lists(st.floats(allow_infinity=False), max_size=12))
def test_the_best_is_the_first_of_the_greatest(values: list[float]) -> None:
    progress = Progress()
    best = None
    for number, value in enumerate(values):
        progress.losses = [0.0] * number
        if progress.note(value):
            best = number

    numbers = [value for value in values if not math.isnan(value)]
    assert progress.best_step == best
    assert best == (values.index(max(numbers)) if numbers else None)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(NoisyTask(tmp_path), options(), tmp_path)

    with pytest.raises(CheckpointMismatch, match=r"another run \(run, not other\)"):
        train(NoisyTask(tmp_path, identity="other"), options(), tmp_path)


def optimiser_of(weights: Iterable[nn.Parameter], norm: float = math.inf) -> CountedOptimiser:
    return CountedOptimiser(torch.optim.SGD(weights, lr=1.0), "a.setting", norm)


def test_gradients_are_scaled_down_to_the_norm_and_cleared() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimiser = optimiser_of([weight], norm=1.0)
    (weight @ torch.tensor([3.0, 4.0])).backward()

    norm = optimiser.step(0.0)

    assert norm == 5.0
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.6, -0.8]))
    assert weight.grad is None


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (1.0, math.inf), (1.0, math.nan)])
def test_what_is_not_finite_is_refused_before_the_step(loss: float, gradient: float) -> None:
    weight = nn.Parameter(torch.ones(1))
    optimiser = optimiser_of([weight])
    weight.grad = torch.tensor([gradient])

    with pytest.raises(TrainingError, match=r"after 0 optimiser .* is not finite; lower a\.set"):
        optimiser.step(loss)

    assert (weight.item(), optimiser.taken) == (1.0, 0)


def test_steps_that_the_optimiser_did_not_make_are_noticed(tmp_path: Path) -> None:
    task = NoisyTask(tmp_path)
    task.optimiser.taken = 5

    with pytest.raises(TrainingError, match="made 1 steps where 6 were counted"):
        train(task, options(), tmp_path)
