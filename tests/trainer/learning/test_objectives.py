"""REBEL, RLOO and KL against arithmetic written out, and their gradients against each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training_settings import RlsoSettings
from trainer.learning.objectives import Rebel, Rloo, kl, leave_one_out, objective_of, varied


def test_rebel_with_two_samples_is_the_papers_formula() -> None:
    new, old = (
        torch.tensor([[-3.0, -5.0], [-2.0, -4.0]]),
        torch.tensor([[-3.5, -5.2], [-2.0, -3.0]]),
    )
    rewards = torch.tensor([[0.9, 0.3], [0.1, 0.2]])
    first = ((-3.0 + 3.5) - (-5.0 + 5.2)) - 2.0 * (0.9 - 0.3)  # η = 2
    second = ((-2.0 + 2.0) - (-4.0 + 3.0)) - 2.0 * (0.1 - 0.2)

    found = Rebel(eta=2.0).loss(new, old, rewards)

    assert found.item() == pytest.approx((first**2 + second**2) / 2)


def test_rebel_of_more_samples_is_the_mean_over_all_pairs() -> None:
    delta, reward = [0.5, -0.25, 0.0, 1.0], [0.2, 0.4, 0.1, 0.9]
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    wanted = sum(((delta[i] - delta[j]) - (reward[i] - reward[j])) ** 2 for i, j in pairs) / 6

    found = Rebel(eta=1.0).loss(torch.tensor([delta]), torch.zeros(1, 4), torch.tensor([reward]))

    assert found.item() == pytest.approx(wanted)


def test_rloo_at_the_old_policy_is_minus_the_mean_advantage_and_clips_far_from_it() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5]])
    advantage = [1.0 - 0.25, 0.0 - 0.75, 0.5 - 0.5]
    assert leave_one_out(rewards).tolist()[0] == pytest.approx(advantage)

    moved = torch.tensor([[math.log(1.5), math.log(0.5), 0.0]])
    found = Rloo(clip=0.2).loss(moved, torch.zeros(1, 3), rewards)

    assert found.item() == pytest.approx(-(1.2 * 0.75 - 0.8 * 0.75) / 3)


def test_the_settings_choose_the_objective() -> None:
    assert objective_of(RlsoSettings(objective="rebel", eta=3.0)) == Rebel(3.0)
    assert objective_of(RlsoSettings(objective="rloo", clip=0.1)) == Rloo(0.1)


numbers = st.floats(-2.0, 2.0, allow_nan=False, width=32)
groups = st.integers(2, 6).flatmap(
    lambda k: st.lists(st.lists(numbers, min_size=k, max_size=k), min_size=1, max_size=4)
)


@given(groups, st.floats(0.1, 5.0), st.integers(0, 9))
def test_at_the_old_policy_the_gradient_of_rebel_is_that_of_rloo_times_a_constant(
    rewards: list[list[float]], eta: float, seed: int
) -> None:
    torch.manual_seed(seed)
    rewarded = torch.tensor(rewards, dtype=torch.float64)
    states, weights = torch.randn(*rewarded.shape, 5, dtype=torch.float64), torch.randn(5).double()
    rebel, rloo = Rebel(eta), Rloo(0.2)

    def gradient(objective: Rebel | Rloo) -> torch.Tensor:
        theta = weights.clone().requires_grad_()
        log_probs = torch.nn.functional.logsigmoid(states @ theta)  # a toy policy
        loss = objective.loss(log_probs, log_probs.detach(), rewarded) / objective.scale
        (found,) = torch.autograd.grad(loss, theta)
        return found

    torch.testing.assert_close(gradient(rebel), gradient(rloo), rtol=1e-9, atol=1e-9)


@given(groups, st.floats(-3.0, 3.0))
def test_a_constant_added_to_the_rewards_of_a_prompt_changes_nothing(
    rewards: list[list[float]], constant: float
) -> None:
    given_rewards = torch.tensor(rewards, dtype=torch.float64)
    new = torch.linspace(-1, 1, given_rewards.numel()).double().reshape(given_rewards.shape)
    old = torch.zeros_like(new)

    for objective in (Rebel(1.0), Rloo(0.2)):
        before = objective.loss(new, old, given_rewards)
        after = objective.loss(new, old, given_rewards + constant)
        torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-9)


@given(groups)
@settings(max_examples=50)
def test_rebel_is_zero_exactly_when_log_ratios_follow_the_rewards(
    rewards: list[list[float]],
) -> None:
    given_rewards = torch.tensor(rewards, dtype=torch.float64)
    followed = 2.0 * given_rewards + 7.0

    assert Rebel(2.0).loss(followed, torch.zeros_like(followed), given_rewards).item() < 1e-20


def test_groups_without_variance_are_told_apart() -> None:
    rewards = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.6, 0.5], [0.0, 1e-9, 0.0]])

    assert varied(rewards).tolist() == [False, True, False]


def test_the_kl_terms_are_summed_over_written_tokens_and_averaged_over_samples() -> None:
    new = torch.tensor([[-1.0, -2.0], [-0.5, -9.0]])
    reference = torch.tensor([[-1.5, -1.0], [-0.5, 99.0]])
    written = torch.tensor([[True, True], [True, False]])
    k3 = [math.exp(-0.5) - 1 + 0.5, math.exp(1.0) - 1 - 1.0, 0.0]

    assert kl(new, reference, written, "plain").item() == pytest.approx((0.5 - 1.0 + 0.0) / 2)
    assert kl(new, reference, written, "k3").item() == pytest.approx(sum(k3) / 2)


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_both_kl_estimators_have_the_true_kl_as_their_mean(seed: int) -> None:
    torch.manual_seed(seed)
    policy, reference = torch.randn(2, 7, dtype=torch.float64).log_softmax(dim=1)
    true = (policy.exp() * (policy - reference)).sum()
    each = torch.ones(7, 1, dtype=torch.bool)

    for estimator in ("plain", "k3"):
        per_token = torch.stack(
            [
                kl(policy[i : i + 1, None], reference[i : i + 1, None], each[:1], estimator)
                for i in range(7)
            ]
        )
        torch.testing.assert_close((policy.exp() * per_token).sum(), true)


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_the_kl_estimators_pull_the_policy_the_right_way_on_average(seed: int) -> None:
    torch.manual_seed(seed)
    logits, reference = torch.randn(2, 7, dtype=torch.float64)
    reference = reference.log_softmax(dim=0)
    each = torch.ones(1, 1, dtype=torch.bool)

    def gradient(of: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        theta = logits.clone().requires_grad_()
        (found,) = torch.autograd.grad(of(theta.log_softmax(dim=0)), theta)
        return found

    def expected(estimator: Literal["k3", "plain"]) -> Callable[[torch.Tensor], torch.Tensor]:
        def mean(policy: torch.Tensor) -> torch.Tensor:
            terms = [
                kl(policy[i].reshape(1, 1), reference[i].reshape(1, 1), each, estimator)
                for i in range(7)
            ]
            return (policy.detach().exp() * torch.stack(terms)).sum()

        return mean

    forward = gradient(lambda policy: (policy.exp() * (policy - reference)).sum())
    backward = gradient(lambda policy: (reference.exp() * (reference - policy)).sum())
    torch.testing.assert_close(gradient(expected("plain")), forward)
    torch.testing.assert_close(gradient(expected("k3")), backward)
