"""A language model behind an OpenAI-compatible server (vLLM, on a GPU or CPU)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import openai

from models.encoders.tokens import token_counter
from models.errors import EngineError, EngineUnavailable
from models.model_files import ModelSource
from models.ports import Completion
from models.settings import ProfileSettings

END_OF_TURN: Final = "<|im_end|>"
HEALTH_TIMEOUT_S: Final = 5.0
REFUSED: Final = {400, 413, 422}  # this request will never do; any other status may pass

T = TypeVar("T")


class OpenAIEncoder:
    """ProfileEncoder over HTTP. Prompts go out as they are, without a chat template.

    `settings.served_model` names the model or LoRA to ask for; without it the first model that
    the server lists is used. Tries once: retries are the caller's.
    """

    def __init__(self, settings: ProfileSettings, tokenizer: ModelSource) -> None:
        self.model = settings.served_model or ""
        self._settings = settings
        self._count = token_counter(tokenizer)
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key.get_secret_value() if settings.api_key else "none",
            timeout=settings.timeout_s,
            max_retries=0,
        )

    async def complete(self, prompt: str, *, max_new_tokens: int) -> Completion:
        """See ProfileEncoder."""
        started = time.perf_counter()
        answer = await _within(self._settings.timeout_s, self._ask(prompt, max_new_tokens))
        return self._completion(answer, prompt, (time.perf_counter() - started) * 1000)

    def count_tokens(self, text: str) -> int:
        """See ProfileEncoder."""
        return self._count(text)

    async def healthy(self) -> bool:
        """Whether the server answers and has the model that is asked for."""
        try:
            names = await _within(HEALTH_TIMEOUT_S, self._served())
        except EngineError:
            return False
        return bool(names) and (self._settings.served_model or names[0]) in names

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(self, prompt: str, max_new_tokens: int) -> Any:
        return await self._client.completions.create(
            model=await self._name(),
            prompt=prompt,
            max_tokens=max_new_tokens,
            temperature=self._settings.temperature,
            seed=self._settings.seed,
            stop=[END_OF_TURN],
            extra_body={  # vLLM's additions to the API
                "repetition_penalty": self._settings.repetition_penalty,
                "add_special_tokens": False,
            },
        )

    async def _name(self) -> str:
        if not self.model:
            names = await self._served()
            if not names:
                raise EngineUnavailable(f"{self._settings.base_url} serves no model")
            self.model = names[0]
        return self.model

    async def _served(self) -> list[str]:
        listed = await self._client.models.list()
        return [str(model.id) for model in getattr(listed, "data", None) or ()]

    def _completion(self, answer: Any, prompt: str, latency_ms: float) -> Completion:
        try:
            text, usage = answer.choices[0].text, answer.usage
        except (AttributeError, IndexError, TypeError) as error:  # the client checks no types
            raise self._unreadable(answer) from error
        if not isinstance(text, str):
            raise self._unreadable(answer)
        return Completion(
            text=text,
            prompt_tokens=usage.prompt_tokens if usage else self._count(prompt),
            completion_tokens=usage.completion_tokens if usage else self._count(text),
            latency_ms=latency_ms,
            model=self.model,
        )

    def _unreadable(self, answer: Any) -> EngineError:
        return EngineError(f"{self.model} answered without a text: {str(answer)[:200]!r}")


async def _within(timeout_s: float, call: Awaitable[T]) -> T:
    """Await a call of the client; what goes wrong becomes an EngineError.

    The time limit is on the whole call: the client's own is per read, which an answer that
    never ends would pass.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except (TimeoutError, openai.APITimeoutError) as error:
        raise EngineUnavailable(f"no answer from the model server in {timeout_s:.0f} s") from error
    except openai.APIConnectionError as error:
        raise EngineUnavailable(f"the model server cannot be reached: {error}") from error
    except openai.APIStatusError as error:
        kind = EngineError if error.status_code in REFUSED else EngineUnavailable
        raise kind(f"the model server answered {error.status_code}: {error.message}") from error
    except (openai.OpenAIError, ValueError) as error:  # ValueError: no JSON, no UTF-8
        raise EngineError(f"the model server's answer cannot be read: {error}") from error
