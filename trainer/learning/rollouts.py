"""Where rollouts come from: any source that samples from the policy as it is now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Protocol

import httpx

from trainer.learning.policy import Policy, Rollout
from trainer.learning.rollouts_vllm import VllmRollouts

ADAPTERS: Final = "adapters"  # the policy as each round's server has it
ROUND_WITHIN_S: Final = 3_600.0  # a server on a small, busy machine takes minutes for a round


class RolloutSource(Protocol):
    """Samples of the policy that is being trained."""

    def sample(
        self, prompts: Sequence[str], k: int, *, temperature: float, seed: int
    ) -> list[list[Rollout]]:
        """K rollouts for each prompt, from the policy with the weights it has now.

        Temperature 0 is greedy. `seed` names the round: no two share one. Raises EngineError.
        """
        ...


class LocalRollouts:
    """RolloutSource in this process: the policy itself generates."""

    def __init__(self, policy: Policy, max_new_tokens: int) -> None:
        self._policy = policy
        self._max_new_tokens = max_new_tokens

    def sample(
        self, prompts: Sequence[str], k: int, *, temperature: float, seed: int
    ) -> list[list[Rollout]]:
        """See RolloutSource."""
        return self._policy.sample(
            prompts, k, max_new_tokens=self._max_new_tokens, temperature=temperature, seed=seed
        )


@contextmanager
def rollouts_of(policy: Policy, vllm_url: str, folder: Path) -> Iterator[RolloutSource]:
    """Where rollouts are made: by a vLLM server, or without a URL by the policy itself.

    A server gets the adapters from below `folder`, which it must see under the same path.
    """
    length = policy.settings.max_new_tokens
    if not vllm_url:
        yield LocalRollouts(policy, length)
        return
    with (
        httpx.Client(base_url=vllm_url, timeout=ROUND_WITHIN_S) as client,
        closing(VllmRollouts(policy, client, folder / ADAPTERS, length)) as source,
    ):
        yield source
