"""Model folders as torch wrote them before safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file


def as_pickle(folder: Path) -> None:
    """The weights of `folder` as a pickle in place of safetensors."""
    for file in folder.glob("*model.safetensors"):
        name = file.name.replace("model.safetensors", "model.bin")
        torch.save(load_file(file), folder / (name if "_" in name else f"pytorch_{name}"))
        file.unlink()
