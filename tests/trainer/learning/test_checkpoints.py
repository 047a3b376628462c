"""Checkpoints: whole or not there, exact, and only of the same run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import CheckpointMismatch, TrainingError
from trainer.learning import checkpoints


def steps(folder: Path, count: int, stop_at: int | None = None) -> list[float]:
    """Losses of a small noisy run with a checkpoint after every step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    losses: list[float] = []
    if held := checkpoints.load(folder, "run"):
        model.load_state_dict(held["model"])
        optimiser.load_state_dict(held["optimiser"])
        checkpoints.set_random_state(held["random"])
        losses = list(held["losses"])
    while len(losses) < (stop_at or count):
        loss: Tensor = model(torch.ones(4, 3)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        state = {
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "random": checkpoints.random_state(),
            "losses": losses,
        }
        checkpoints.save(folder, state, "run")
    return losses


def test_a_resumed_run_repeats_the_losses_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = steps(tmp_path / "unbroken", 8)

    steps(tmp_path / "killed", 8, stop_at=3)
    torch.rand(100)  # whatever happened in between

    assert steps(tmp_path / "killed", 8) == unbroken
    assert len(set(unbroken)) == 8


def test_there_is_nothing_to_load_before_the_first_save(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path / "none", "run") is None


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"step": 1}, "model-a")

    with pytest.raises(TrainingError, match=r"of another run \(model-a, not model-b\)"):
        checkpoints.load(tmp_path, "model-b")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x02N."])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)

    with pytest.raises(TrainingError, match=r"checkpoint\.pt"):
        checkpoints.load(tmp_path, "run")


def test_a_checkpoint_of_an_older_layout_is_refused_with_what_to_do(tmp_path: Path) -> None:
    old = {"version": 1, "identity": "run", "state": {"step": 1}}
    torch.save(old, tmp_path / "checkpoint.pt")

    with pytest.raises(CheckpointMismatch, match=rf"has layout 1.* remove {tmp_path} to begin"):
        checkpoints.load(tmp_path, "run")


def test_a_save_that_fails_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(tmp_path, {"step": 1}, "run")

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(TrainingError, match="No space left"):
        checkpoints.save(tmp_path, {"step": 2}, "run")

    assert checkpoints.load(tmp_path, "run") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_states_of_numpy_generators_survive(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    checkpoints.save(tmp_path, {"order": rng.bit_generator.state}, "run")
    drawn = rng.random(5)

    held = checkpoints.load(tmp_path, "run")
    again = np.random.default_rng()
    assert held is not None
    again.bit_generator.state = held["order"]

    assert again.random(5).tolist() == drawn.tolist()
