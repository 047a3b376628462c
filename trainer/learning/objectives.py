"""What RLSO minimises on a round of rollouts, and the optimiser steps that do it.

Both objectives see log-probabilities and rewards of K samples for each prompt, centre them within
the prompt, and divide by no standard deviation (methods §8.9). They differ by a constant at the
policy that made the samples; `scale` is that constant, so that a weight of the KL term means the
same beside either.

Old, reference and new log-probabilities of a group come from one function on the same group, so
that at the first step their differences are zero and not noise (methods §8.1). A step's gradient
is accumulated over groups: it is the same however many of them go through the model at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from models.training_settings import RlsoSettings
from trainer.learning.loop import CountedOptimiser
from trainer.learning.packing import Rollout
from trainer.learning.policy import Policy

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


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """The K rollouts of one prompt and what they are worth."""

    rollouts: Sequence[Rollout]
    rewards: Tensor  # [K]


@dataclass(frozen=True, slots=True)
class Step:
    """Figures of one optimiser step."""

    epoch: int
    loss: float  # of the objective alone
    kl: float  # to the reference, per sample, before its weight
    gradient: float  # norm before it is scaled down
    ratio: float  # mean |log ratio| of samples to the old policy: how far the round has gone


@dataclass(frozen=True, slots=True)
class _Known:
    """A group with what does not change during the round."""

    group: RolloutGroup
    old: Sequence[Tensor]  # K of [tokens]
    reference: Sequence[Tensor]  # K of [tokens]


def optimiser_of(policy: Policy, settings: RlsoSettings) -> CountedOptimiser:
    """AdamW on the policy's adapter."""
    return CountedOptimiser(
        torch.optim.AdamW(policy.parameters(), lr=settings.learning_rate, weight_decay=0.0),
        "train.rlso.learning_rate",
        settings.gradient_norm,
    )


def learn(
    policy: Policy,
    optimiser: CountedOptimiser,
    groups: Sequence[RolloutGroup],
    settings: RlsoSettings,
    seed: int,
) -> Iterator[Step]:
    """Pass `epochs` times over the groups, each time in a new order, one step per `batch` groups.

    Yields after each optimiser step. Raises TrainingError if a loss is not finite.
    """
    objective = objective_of(settings)
    known = [_known(policy, group, settings.temperature) for group in groups]
    order = torch.Generator().manual_seed(seed)
    for epoch in range(settings.epochs):
        shuffled = torch.randperm(len(known), generator=order).tolist()
        for start in range(0, len(known), settings.batch):
            chosen = [known[n] for n in shuffled[start : start + settings.batch]]
            yield _step(policy, optimiser, objective, chosen, epoch, settings)


def _known(policy: Policy, group: RolloutGroup, temperature: float) -> _Known:
    with torch.no_grad():
        old = policy.token_log_probs(group.rollouts, temperature=temperature)
        with policy.reference():
            reference = policy.token_log_probs(group.rollouts, temperature=temperature)
    return _Known(group, old, reference)


def _step(
    policy: Policy,
    optimiser: CountedOptimiser,
    objective: Objective,
    chosen: Sequence[_Known],
    epoch: int,
    settings: RlsoSettings,
) -> Step:
    sums = torch.zeros(3)  # loss, KL, |log ratio|
    for start in range(0, len(chosen), settings.micro_batch):
        part = chosen[start : start + settings.micro_batch]
        loss, divergence, moved = _losses(policy, objective, part, settings)
        total = loss / objective.scale + settings.kl * divergence
        (total * len(part) / len(chosen)).backward()
        sums += torch.stack([loss, divergence, moved]).detach().cpu() * len(part) / len(chosen)
    value, mean_kl, ratio = sums.tolist()
    return Step(epoch, value, mean_kl, optimiser.step(value), ratio)


def _losses(
    policy: Policy, objective: Objective, part: Sequence[_Known], settings: RlsoSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """(objective, KL, mean |log ratio|) of a few groups, scalars."""
    rollouts = [rollout for known in part for rollout in known.group.rollouts]
    new = policy.token_log_probs(rollouts, temperature=settings.temperature)
    old = [one for known in part for one in known.old]
    reference = [one for known in part for one in known.reference]
    rewards = torch.stack([known.group.rewards for known in part]).to(new[0])
    whole_new, whole_old = _whole(new, rewards.shape), _whole(old, rewards.shape)
    loss = objective.loss(whole_new, whole_old, rewards)
    written = _padded([torch.ones_like(one, dtype=torch.bool) for one in new])
    divergence = kl(_padded(new), _padded(reference), written, settings.kl_estimator)
    return loss, divergence, (whole_new - whole_old).abs().mean()


def _whole(tokens: Sequence[Tensor], shape: torch.Size) -> Tensor:
    """Log-probabilities of whole samples, [prompts, K]."""
    return torch.stack([one.sum() for one in tokens]).reshape(shape)


def _padded(tokens: Sequence[Tensor]) -> Tensor:
    """[samples, tokens], padded with zeros."""
    return torch.nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
