"""Rollouts from a real vLLM server are the policy's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import httpx
import pytest
import torch

from models.engines.model_files import language_model
from models.profile.prompts import render
from models.settings import Settings
from tests.conftest import MakeSettings
from tests.patience import NEVER_S
from tests.streams.profiler.requests import request
from tests.vllm import Served
from trainer.learning.policy import Policy, PolicyOptions, Rollout
from trainer.learning.rollouts_vllm import VllmRollouts

pytestmark = pytest.mark.vllm

PROMPT = render(request())


@pytest.fixture
def policy(make_settings: MakeSettings) -> Policy:
    """An adapter that changes much."""
    settings: Settings = make_settings()
    made = Policy.load(language_model(settings), PolicyOptions(max_new_tokens=12))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.06 * torch.randn_like(parameter))
    return made


@pytest.fixture
def source(policy: Policy, vllm: Served, tmp_path: Path) -> Iterator[VllmRollouts]:
    with httpx.Client(base_url=vllm.base_url, timeout=NEVER_S) as client:
        made = VllmRollouts(policy, client, tmp_path, max_new_tokens=12)
        yield made
        made.close()


def mean_log_prob(policy: Policy, rollouts: list[Rollout]) -> float:
    """Per token, under the policy as it is trained."""
    with torch.no_grad():
        return mean(one.mean().item() for one in policy.token_log_probs(rollouts))


def test_the_servers_rollouts_are_as_likely_as_the_policys_own(
    policy: Policy, source: VllmRollouts
) -> None:
    (served,) = source.sample([PROMPT], 6, temperature=1.0, seed=1)
    (own,) = policy.sample([PROMPT], 6, max_new_tokens=12, temperature=1.0, seed=1)
    (greedy,) = source.sample([PROMPT], 1, temperature=0.0, seed=1)
    (own_greedy,) = policy.sample([PROMPT], 1, max_new_tokens=12, temperature=0.0, seed=1)

    assert [one.prompt_ids for one in served] == [one.prompt_ids for one in own]
    assert all(0 < len(one.completion_ids) <= 12 for one in served)
    assert all(one.finished == (one.completion_ids[-1] in policy.stop_ids) for one in served)
    assert len({one.completion_ids for one in served}) > 1
    sampled, likeliest = mean_log_prob(policy, served), mean_log_prob(policy, greedy)
    assert sampled == pytest.approx(mean_log_prob(policy, own), abs=1.5)
    assert likeliest == pytest.approx(mean_log_prob(policy, own_greedy), abs=0.3)
    with policy.reference():  # the base says other things
        assert mean_log_prob(policy, greedy) < likeliest - 0.5


def test_what_is_learned_between_rounds_is_served_in_the_next(
    policy: Policy, source: VllmRollouts
) -> None:
    ((before,),) = source.sample([PROMPT], 1, temperature=0.0, seed=1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(-1.0 if parameter.shape[0] > parameter.shape[1] else 1.0)

    ((after,),) = source.sample([PROMPT], 1, temperature=0.0, seed=1)

    assert after.completion_ids != before.completion_ids


def test_many_long_prompts_with_seeds_at_once_do_not_end_the_server(source: VllmRollouts) -> None:
    """vLLM reads 2,048 tokens in a step; what it reads in pieces ends it on a CPU."""
    prompts = [f"{number}. {'a red tea cup, ' * 60}" for number in range(12)]

    written = source.sample(prompts, 1, temperature=1.0, seed=1)

    assert len(written) == len(prompts)
    assert all(0 < len(one.completion_ids) <= 12 for (one,) in written)
    assert sum(len(one.prompt_ids) for (one,) in written) > 2_048
