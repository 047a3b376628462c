"""GGUF → a plain safetensors folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


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
