"""Rounds of Palate's RLSO with the RLOO objective: in-process rollouts, rewards by lot."""

from __future__ import annotations

import torch

from deploy.bench.contestants import rollout_work as work
from models.engines.threads import wait_without_spinning
from models.training_settings import RlsoSettings
from trainer.learning.loop import CountedOptimiser
from trainer.learning.objectives import RolloutGroup, learn, optimiser_of
from trainer.learning.policy import Policy, PolicyOptions

SETTINGS = RlsoSettings(
    objective="rloo",
    samples=work.SAMPLES,
    prompts=work.PROMPTS,
    batch=work.STEP_PROMPTS,
    micro_batch=work.STEP_PROMPTS,
    epochs=work.EPOCHS,
    learning_rate=work.LEARNING_RATE,
    kl=work.KL,
)


def main() -> None:
    """One round that does not count, then those that do."""
    wait_without_spinning()
    model, prompts, rounds, out = work.arguments()
    options = PolicyOptions(max_new_tokens=work.NEW_TOKENS)
    policy = Policy.load(model, options, seed=work.SEED)
    optimiser = optimiser_of(policy, SETTINGS)
    lot = torch.Generator().manual_seed(work.SEED)
    one_round(policy, optimiser, lot, prompts[: work.PROMPTS], work.WorkSeconds())
    done = work.WorkSeconds()
    for number in range(rounds):
        first = number * work.PROMPTS % len(prompts)
        one_round(policy, optimiser, lot, prompts[first : first + work.PROMPTS], done)
    done.write(out)


def one_round(
    policy: Policy,
    optimiser: CountedOptimiser,
    lot: torch.Generator,
    prompts: list[str],
    done: work.WorkSeconds,
) -> None:
    """Rollouts, then all optimiser steps on them."""
    with done.rolling_out():
        sampled = policy.sample(prompts, work.SAMPLES, seed=done.rounds)
    with done.learning():
        groups = [RolloutGroup(one, torch.rand(work.SAMPLES, generator=lot)) for one in sampled]
        done.steps += sum(1 for _ in learn(policy, optimiser, groups, SETTINGS, seed=done.rounds))
    done.tokens += sum(len(one.completion_ids) for group in sampled for one in group)
    done.rounds += 1


if __name__ == "__main__":
    main()
