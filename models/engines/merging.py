"""An adapter put into the weights of its model: a plain model again, as fast as the base."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from models.engines.model_files import ModelSource, refuse_pickles
from models.engines.pretrained import pretrained
from models.errors import EngineError


def merged(base: Any, adapter: Path) -> Any:
    """A copy of the model `base` with the adapter of a PEFT folder in its weights.

    The sum is made in float32 and rounded to the base's type. Raises EngineError if the folder
    holds no adapter, or one of another model.
    """
    dtype = base.dtype
    try:
        refuse_pickles(adapter)
        adapted = PeftModel.from_pretrained(copy.deepcopy(base).float(), str(adapter))
        return adapted.merge_and_unload().to(dtype).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise EngineError(f"{adapter} cannot be put on {base.name_or_path}: {error}") from error


def write_merged(source: ModelSource, adapter: Path, folder: Path) -> None:
    """Write the model `source` with `adapter` in its weights, and its tokenizer, into `folder`."""
    try:
        tokenizer, base = pretrained(source)
    except (OSError, ValueError) as error:
        raise EngineError(f"the language model {source} cannot be loaded: {error}") from error
    with torch.no_grad():
        merged(base, adapter).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():  # safetensors writes its files for the owner only
        file.chmod(0o644)
