"""Shipped stand-ins for the ports: no model, no disk, no network."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from models.errors import EngineError, EngineUnavailable
from models.ports import Completion, Vectors

Answer = str | EngineError


class FakeEncoder:
    """ProfileEncoder that answers from a script or a function of the prompt.

    `answers` is used up in order, then `otherwise` answers. An error among the answers is
    raised. While `down`, every call raises EngineUnavailable. Calls wait while `gate` is clear.
    """

    def __init__(
        self,
        answers: Sequence[Answer] = (),
        otherwise: Callable[[str], Answer] = lambda _: "",
        model: str = "fake",
    ) -> None:
        self.model = model
        self.prompts: list[str] = []
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._answers = list(answers)
        self._otherwise = otherwise

    async def complete(self, prompt: str, *, max_new_tokens: int) -> Completion:
        """See ProfileEncoder; at most `max_new_tokens` words."""
        self.prompts.append(prompt)
        await self.gate.wait()
        if self.down:
            raise EngineUnavailable("the fake engine is down")
        answer = self._answers.pop(0) if self._answers else self._otherwise(prompt)
        if isinstance(answer, EngineError):
            raise answer
        words = re.findall(r"\s*\S+", answer)[:max_new_tokens]
        return Completion("".join(words), self.count_tokens(prompt), len(words), 1.0, self.model)

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(text.split())

    async def healthy(self) -> bool:
        """Not `down`."""
        return not self.down

    async def close(self) -> None:
        """Nothing is held."""


class HashEmbedder:
    """TextEmbedder that adds up one fixed random direction per word: shared words are near."""

    def __init__(self, dimension: int = 64, model: str = "hash") -> None:
        self.model = model
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See TextEmbedder."""
        rows = [self._row(text) for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), self.dimension)

    def _row(self, text: str) -> Vectors:
        words = re.findall(r"\w+", text.lower()) or [""]
        total = np.sum([self._direction(word) for word in words], axis=0)
        return np.asarray(total / np.linalg.norm(total), np.float32)

    def _direction(self, word: str) -> Vectors:
        seed = zlib.crc32(word.encode())
        return np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
