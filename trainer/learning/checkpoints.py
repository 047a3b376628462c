"""Checkpoints that a killed run resumes from, step for step as if nothing had happened.

A checkpoint is one file, replaced by a rename, so a kill or a full disk while writing leaves the
one before. It carries the identity of its run (model, settings, data): a checkpoint of another
run is refused instead of being trained on by mistake.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from models.durable import replacing
from models.errors import CheckpointMismatch, TrainingError

_FILE: Final = "checkpoint.pt"
_VERSION: Final = 2  # of the file's layout, and of what trainer.learning.loop puts into it


def save(folder: Path, state: Mapping[str, Any], identity: str) -> None:
    """Replace the checkpoint of `folder`, atomically and durably.

    `state` holds tensors, numbers, strings, and dicts, lists and tuples of them: state dicts of
    model and optimiser, `random_state()`, the step. Raises TrainingError if it cannot be
    written, and then the checkpoint before stands.
    """
    content = {"version": _VERSION, "identity": identity, "state": dict(state)}
    try:
        with replacing(folder / _FILE) as draft:
            torch.save(content, draft)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into the latter
        raise TrainingError(f"no checkpoint can be written to {folder}: {error}") from error


def load(folder: Path, identity: str) -> Mapping[str, Any] | None:
    """The state that `save` was given last, on the CPU; None if there is no checkpoint.

    Raises CheckpointMismatch if it is of another run or another version of Palate, TrainingError
    if it cannot be read.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    held = _read(path)
    if held["identity"] != identity:
        raise CheckpointMismatch(
            f"{path} is of another run ({held['identity']}, not {identity}): model, settings or "
            f"data have changed; remove {folder} to begin anew"
        )
    state: Mapping[str, Any] = held["state"]
    return state


def _read(path: Path) -> Mapping[str, Any]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove it to begin anew") from error
    if not isinstance(held, dict) or "version" not in held:
        raise TrainingError(f"{path} is no checkpoint; remove it to begin anew")
    if held["version"] != _VERSION:
        raise CheckpointMismatch(
            f"{path} has layout {held['version']}, and this version of Palate reads layout "
            f"{_VERSION}: finish the run with the version that began it, or remove {path.parent} "
            "to begin anew"
        )
    return held


def random_state() -> dict[str, Any]:
    """State of torch's generators (dropout, sampling), for `save`."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put torch's generators where `random_state` found them."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
