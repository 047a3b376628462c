"""A language model behind an OpenAI-compatible server (vLLM, on a GPU or CPU)."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import Any, Final

import openai

from models.engines.http_errors import NotAModelServer, NotServed, within
from models.engines.model_files import ModelSource
from models.engines.server_adapters import ServerAdapters, served
from models.engines.tokens import token_counter, token_ids
from models.errors import EngineError, EngineUnavailable
from models.ports import Adapter, Completion
from models.settings import ProfileSettings

END_OF_TURN: Final = "<|im_end|>"


class OpenAIEncoder:
    """ProfileEncoder over HTTP. Prompts go out as they are, without a chat template.

    Adapters are loaded into the server, which must be vLLM and see their folders. Where
    `settings.served_model` names what to ask for, that is asked whatever the adapter: what the
    server has under the name is the operator's business. Without either, the server is asked for
    `settings.model`, or for the first model that it lists. Tries once: retries are the caller's.
    """

    def __init__(self, settings: ProfileSettings, tokenizer: ModelSource) -> None:
        self.model = settings.served_model or ""
        self._settings, self._tokenizer = settings, tokenizer
        self._count = token_counter(tokenizer)
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key.get_secret_value() if settings.api_key else "none",
            timeout=settings.timeout_s,
            max_retries=0,
        )
        self._adapters = ServerAdapters(self._client)

    async def complete(
        self, prompt: str, *, max_new_tokens: int, adapter: str | None = None
    ) -> Completion:
        """See ProfileEncoder."""
        started = time.perf_counter()
        sampling = {
            "max_tokens": max_new_tokens,
            "temperature": self._settings.temperature,
            "seed": self._settings.seed,
            "stop": [END_OF_TURN],
        }
        extra = {"repetition_penalty": self._settings.repetition_penalty}
        name, answer = await self._ask(adapter, prompt, sampling, extra)
        return self._completion(answer, name, prompt, (time.perf_counter() - started) * 1000)

    async def prepare(self, adapter: Adapter) -> None:
        """See ProfileEncoder."""
        if not self._settings.served_model:
            await self._adapters.add(adapter)

    async def keep(self, adapters: Collection[str]) -> None:
        """See ProfileEncoder."""
        await self._adapters.keep(adapters)

    async def log_prob(self, prompt: str, text: str, *, adapter: str | None = None) -> float:
        """See ProfileEncoder; by `prompt_logprobs`, which only vLLM knows."""
        ids = token_ids(self._tokenizer)
        read, measured = ids(prompt), ids(text)
        sampling = {"max_tokens": 1, "temperature": 0.0}
        extra = {"prompt_logprobs": 0}
        name, answer = await self._ask(adapter, read + measured, sampling, extra)
        choice = _first_choice(answer, name)
        try:
            pairs = zip(measured, choice.prompt_logprobs[len(read) :], strict=True)
            return math.fsum(float(told[str(token)]["logprob"]) for token, told in pairs)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise EngineError("the model server tells no probabilities of prompts") from error

    def count_tokens(self, text: str) -> int:
        """See ProfileEncoder."""
        return self._count(text)

    async def healthy(self) -> bool:
        """Whether the server answers and has the model that is asked for."""
        try:
            names = await served(self._client)
        except EngineError:
            return False
        return bool(names) and (self._settings.served_model or names[0]) in names

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(
        self,
        adapter: str | None,
        prompt: str | list[int],
        sampling: dict[str, Any],
        extra: dict[str, Any],
    ) -> tuple[str, Any]:
        """(name that was asked, answer); `extra` are vLLM's additions to the API."""
        named = None if self._settings.served_model else adapter

        async def call() -> tuple[str, Any]:
            name = named or await self._own_name()
            answer = await self._client.completions.create(
                model=name,
                prompt=prompt,
                extra_body={**extra, "add_special_tokens": False},
                **sampling,
            )
            return name, answer

        timeout_s = self._settings.timeout_s
        try:
            return await self._adapters.using(named, lambda: within(timeout_s, call()))
        except NotServed:  # perhaps another server has taken the place of the one that was asked
            self.model = self._settings.served_model or ""
            raise

    async def _own_name(self) -> str:
        if not self.model:
            names = await served(self._client)
            if not names:
                raise EngineUnavailable(f"{self._settings.base_url} serves no model")
            self.model = self._settings.model if self._settings.model in names else names[0]
        return self.model

    def _completion(self, answer: Any, name: str, prompt: str, latency_ms: float) -> Completion:
        text = getattr(_first_choice(answer, name), "text", None)
        if not isinstance(text, str):
            raise _unreadable(answer, name)
        usage = getattr(answer, "usage", None)
        read, written = (
            getattr(usage, f"{kind}_tokens", None) for kind in ("prompt", "completion")
        )
        return Completion(
            text=text,
            prompt_tokens=read if isinstance(read, int) else self._count(prompt),
            completion_tokens=written if isinstance(written, int) else self._count(text),
            latency_ms=latency_ms,
            model=name,
        )


def _first_choice(answer: Any, name: str) -> Any:
    """The client checks no types: it may be anything that JSON can say."""
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise _unreadable(answer, name)
    return choices[0]


def _unreadable(answer: Any, name: str) -> EngineError:
    return NotAModelServer(f"{name} answered without a text: {str(answer)[:200]!r}")
