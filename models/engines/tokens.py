"""Counting tokens without loading a model: the `tokenizers` library alone, no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from models.engines.model_files import ModelSource
from models.errors import EngineError


def token_counter(source: ModelSource) -> Callable[[str], int]:
    """`count(text)` for the tokenizer of a model folder or hub id; special tokens are not added.

    Raises EngineError if there is no readable tokenizer.json.
    """
    tokenizer = _load(source)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


def token_ids(source: ModelSource) -> Callable[[str], list[int]]:
    """`ids(text)`, otherwise as `token_counter`."""
    tokenizer = _load(source)

    def ids(text: str) -> list[int]:
        return [int(token) for token in tokenizer.encode(text, add_special_tokens=False).ids]

    return ids


def _load(source: ModelSource) -> Tokenizer:
    try:
        if isinstance(source, Path):
            return Tokenizer.from_file(str(source / "tokenizer.json"))
        return Tokenizer.from_pretrained(source)
    except Exception as error:  # the library raises bare Exceptions
        raise EngineError(f"no tokenizer.json can be read from {source}: {error}") from error
