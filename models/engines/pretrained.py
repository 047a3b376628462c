"""A language model and its tokenizer, as transformers has them; from GGUF to such a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.engines.model_files import ModelSource, is_local, refuse_pickles


def pretrained(source: ModelSource) -> tuple[Any, Any]:
    """(tokenizer, model) of a folder or a hub id; weights from safetensors alone.

    Raises OSError or ValueError if they cannot be loaded: the caller knows what for.
    """
    refuse_pickles(source)
    local = is_local(source)
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
    model = AutoModelForCausalLM.from_pretrained(
        source, local_files_only=local, dtype="auto", use_safetensors=True
    )
    return tokenizer, model


def gguf_to_safetensors(gguf: Path, folder: Path) -> None:
    """Write model (bfloat16) and tokenizer of the file `gguf` into `folder`.

    transformers refuses to save a model read from GGUF ("quantized with GGUF"), though its
    weights are plain floats by then: they are copied into a fresh model without that mark.
    """
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = type(read)(config)
    fresh.load_state_dict(read.state_dict())
    fresh.tie_weights()
    fresh.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    for file in folder.iterdir():  # safetensors writes its files for the owner only
        file.chmod(0o644)
