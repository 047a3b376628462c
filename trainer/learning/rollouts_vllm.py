"""Rollouts from a vLLM server on this machine, which gets the adapter anew for each round.

The server must run with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING (`palate vllm` with
an adapter does). Every round has a folder and a name of its own: vLLM refuses a name that it
knows, and serves stale prefixes when a folder changes under it. Log-probabilities are not taken
from the server: old and new ones must come from one code path (methods §8.1).
"""

from __future__ import annotations

import itertools
import logging
import shutil
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from models.errors import EngineError, EngineUnavailable
from trainer.learning.policy import Policy, Rollout

IN_FLIGHT = 64  # prompts asked at once; vLLM on two cores gains nothing above
KEPT_ADAPTERS = 2  # unloading may not free a slot at once, so the last round's stays a while

logger = logging.getLogger(__name__)


class VllmRollouts:
    """RolloutSource over HTTP.

    `client`: with the server's base URL (…/v1) and a timeout as long as a round. `folder`: the
    server sees it under the same path.
    """

    def __init__(
        self, policy: Policy, client: httpx.Client, folder: Path, max_new_tokens: int
    ) -> None:
        self._policy = policy
        self._folder = folder
        self._max_new_tokens = max_new_tokens
        self._client = client
        self._names = (f"rollouts-{uuid.uuid4().hex[:8]}-{n}" for n in itertools.count())
        self._loaded: list[str] = []

    def sample(
        self, prompts: Sequence[str], k: int, *, temperature: float, seed: int
    ) -> list[list[Rollout]]:
        """See RolloutSource. Loads the policy's adapter, then asks for all prompts at once."""
        name = self._load()
        asked = [
            {"prompt": prompt, "seed": (seed * 1_000_003 + n) % 2**31}
            for n, prompt in enumerate(prompts)
        ]
        common = self._sampling(name, k, temperature)
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            return list(threads.map(lambda one: self._ask(common | one), asked))

    def close(self) -> None:
        """Unload what was loaded and remove the folders."""
        self._unload(self._loaded)

    def _load(self) -> str:
        name = next(self._names)
        target = (self._folder / name).absolute()
        self._policy.save(target)
        self._post("load_lora_adapter", {"lora_name": name, "lora_path": str(target)})
        self._loaded.append(name)
        self._unload(self._loaded[:-KEPT_ADAPTERS])
        return name

    def _unload(self, names: Iterable[str]) -> None:
        for name in list(names):
            try:
                self._post("unload_lora_adapter", {"lora_name": name})
            except EngineError as error:  # a server that was started anew has lost it already
                logger.warning("adapter %s is not unloaded: %s", name, error)
            shutil.rmtree(self._folder / name, ignore_errors=True)
            self._loaded.remove(name)

    def _sampling(self, name: str, k: int, temperature: float) -> dict[str, Any]:
        return {
            "model": name,
            "n": k,
            "max_tokens": self._max_new_tokens,
            "temperature": temperature,
            # Explicit: the model's own generation config must not narrow the distribution.
            **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
            "stop_token_ids": list(self._policy.stop_ids),
            "add_special_tokens": False,
            "return_token_ids": True,
        }

    def _ask(self, body: dict[str, Any]) -> list[Rollout]:
        answer = self._post("completions", body)
        try:
            choices = sorted(answer.json()["choices"], key=lambda choice: int(choice["index"]))
            return [self._rollout(choices[0]["prompt_token_ids"], choice) for choice in choices]
        except (LookupError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self._client.base_url}completions answered without rollouts ({error!r}): "
                f"{answer.text[:300]}; does it name a vLLM server?"
            ) from error

    def _rollout(self, prompt_ids: Sequence[int], choice: dict[str, Any]) -> Rollout:
        return Rollout(
            prompt_ids=tuple(prompt_ids),
            completion_ids=tuple(choice["token_ids"]),
            text=choice["text"],
            finished=choice["finish_reason"] == "stop",
        )

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            answer = self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise EngineUnavailable(f"no rollouts from {self._client.base_url}: {error}") from error
        if answer.is_error:
            raise EngineError(
                f"{self._client.base_url}{path} answered {answer.status_code}: {answer.text[:300]}"
            )
        return answer
