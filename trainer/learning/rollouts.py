"""Where rollouts come from: any source that samples from the policy as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trainer.learning.policy import Policy, Rollout


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
