"""One round of rollouts → optimiser steps on the policy.

Old, reference and new log-probabilities of a group come from one function on the same group, so
that at the first step their differences are zero and not noise (methods §8.1). A step's gradient
is accumulated over groups: it is the same however many of them go through the model at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import TrainingError
from models.training_settings import RlsoSettings
from trainer.learning.objectives import Objective, kl, objective_of
from trainer.learning.policy import Policy, Rollout


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


def learn(
    policy: Policy,
    optimiser: torch.optim.Optimizer,
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
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    chosen: Sequence[_Known],
    epoch: int,
    settings: RlsoSettings,
) -> Step:
    optimiser.zero_grad(set_to_none=True)
    sums = torch.zeros(3)  # loss, KL, |log ratio|
    for start in range(0, len(chosen), settings.micro_batch):
        part = chosen[start : start + settings.micro_batch]
        loss, divergence, moved = _losses(policy, objective, part, settings)
        total = loss / objective.scale + settings.kl * divergence
        (total * len(part) / len(chosen)).backward()
        sums += torch.stack([loss, divergence, moved]).detach().cpu() * len(part) / len(chosen)
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), settings.gradient_norm)
    if not torch.isfinite(sums).all() or not torch.isfinite(norm):
        raise TrainingError(f"loss or gradient is not finite ({sums.tolist()}, norm {norm})")
    optimiser.step()
    value, divergence, moved = sums.tolist()
    return Step(epoch, value, divergence, float(norm), moved)


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
