"""A language model and its tokenizer, as transformers has them."""

from __future__ import annotations

from typing import Any

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
