"""What is minimised on a round of rollouts: REBEL's regression or RLOO, and the KL beside it.

Both objectives see log-probabilities and rewards of K samples for each prompt, centre them within
the prompt, and divide by no standard deviation (methods §8.9). They differ by a constant at the
policy that made the samples; `scale` is that constant, so that a weight of the KL term means the
same beside either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from models.training_settings import RlsoSettings

TIED = 1e-6  # rewards of one prompt that differ by less say nothing about its samples


class Objective(Protocol):
    """A loss over samples of an older policy."""

    @property
    def scale(self) -> float:
        """Gradient of the loss at the old policy, as a multiple of RLOO's."""
        ...

    def loss(self, new: Tensor, old: Tensor, rewards: Tensor) -> Tensor:
        """Scalar; `new`, `old`, `rewards` are [prompts, K].

        `new` and `old` are log-probabilities of whole samples under the policy being trained and
        the one that made them; only `new` carries a gradient.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rebel:
    """REBEL's regression over all pairs of K samples (methods §8.6).

    mean over prompts and pairs of [ (Δ_i − Δ_j) − η (R_i − R_j) ]², Δ = new − old. With two
    samples it is the paper's formula. The squared residual keeps the policy near the old one.
    """

    eta: float

    @property
    def scale(self) -> float:
        """See Objective: ∇ = −4η/(K−1) Σ (R_i − mean R) ∇new_i, and RLOO's without the 4η."""
        return 4.0 * self.eta

    def loss(self, new: Tensor, old: Tensor, rewards: Tensor) -> Tensor:
        """See Objective. All pairs at once: Σ_{i<j} (a_i − a_j)² = K Σ (a_i − mean a)²."""
        left = (new - old) - self.eta * rewards
        centred = left - left.mean(dim=1, keepdim=True)
        return 2.0 / (new.shape[1] - 1) * centred.square().sum(dim=1).mean()


@dataclass(frozen=True, slots=True)
class Rloo:
    """REINFORCE with the mean of the other samples as baseline (methods §8.7).

    −mean of min(ρ A, clip(ρ, 1 ± clip) A), ρ = exp(new − old) of the whole sample: rollouts are
    used for several passes, and the clip is what keeps the policy near the old one.
    """

    clip: float

    @property
    def scale(self) -> float:
        """See Objective."""
        return 1.0

    def loss(self, new: Tensor, old: Tensor, rewards: Tensor) -> Tensor:
        """See Objective."""
        advantage = leave_one_out(rewards)
        ratio = (new - old).exp()
        clipped = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def objective_of(settings: RlsoSettings) -> Objective:
    """The objective that the settings name."""
    return Rebel(settings.eta) if settings.objective == "rebel" else Rloo(settings.clip)


def leave_one_out(rewards: Tensor) -> Tensor:
    """[prompts, K]: each reward minus the mean of the prompt's others."""
    samples = rewards.shape[1]
    return (rewards - rewards.mean(dim=1, keepdim=True)) * samples / (samples - 1)


def varied(rewards: Tensor) -> Tensor:
    """[prompts] of bool: whether the rewards [prompts, K] of a prompt differ at all."""
    return rewards.amax(dim=1) - rewards.amin(dim=1) > TIED


def kl(
    new: Tensor, reference: Tensor, written: Tensor, estimator: Literal["k3", "plain"]
) -> Tensor:
    """Scalar: mean KL(policy ‖ reference) of whole samples of the policy (methods §8.8).

    `new`, `reference`: log-probabilities of tokens [samples, tokens]; `written` [samples, tokens]
    says which of them are there. `plain` is Σ log p/q of a sample, with the gradient of
    ½ (Σ log p/q)²: its own would be 0 on average, this one is that of KL(p ‖ q). `k3` is
    Σ q/p − 1 − log q/p over tokens, never negative and of less variance; its gradient is that of
    KL(q ‖ p), which has the same minimum and the same curvature there.
    """
    apart = (new - reference).masked_fill(~written, 0.0)
    if estimator == "k3":
        return (torch.expm1(-apart) + apart).sum(dim=1).mean()
    whole = apart.sum(dim=1)
    half = 0.5 * whole.square()
    return (whole.detach() + half - half.detach()).mean()
