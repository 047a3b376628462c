"""What is asked of a vLLM server, and what is made of its answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.errors import EngineError, EngineUnavailable
from tests.trainer.learning import planted
from tests.trainer.learning.served import Server
from trainer.learning.policy import Policy, Rollout
from trainer.learning.rollouts_vllm import VllmRollouts


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    source = planted.model(tmp_path_factory.mktemp("planted"))
    return Policy.load(source, planted.POLICY, device="cpu")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def rollouts(server: Server, policy: Policy, tmp_path: Path) -> Iterator[VllmRollouts]:
    transport = httpx.MockTransport(server)
    with httpx.Client(base_url="http://server/v1", transport=transport) as client:
        yield VllmRollouts(policy, client, tmp_path, max_new_tokens=3)


def test_every_prompt_gets_its_rollouts_in_order_with_their_tokens(rollouts: VllmRollouts) -> None:
    found = rollouts.sample(["likes tea ?", "likes lace ?"], 2, temperature=1.0, seed=1)

    assert (
        found
        == [[Rollout((2, 4), (4, 1), "tea", True), Rollout((2, 4), (4, 5, 6), "tea", False)]] * 2
    )


def test_the_server_samples_from_the_policys_own_distribution(
    rollouts: VllmRollouts, server: Server, policy: Policy
) -> None:
    rollouts.sample(["a", "b"], 2, temperature=0.7, seed=1)

    for body in server.asked:
        assert (body["temperature"], body["top_p"], body["top_k"]) == (0.7, 1.0, 0)
        assert body["repetition_penalty"] == 1.0
        assert body["stop_token_ids"] == list(policy.stop_ids)
        assert (body["n"], body["max_tokens"]) == (2, 3)
        assert not body["add_special_tokens"]
    seeds = {body["prompt"]: body["seed"] for body in server.asked}
    assert len(set(seeds.values())) == 2


def test_every_round_has_an_adapter_of_its_own_and_the_last_ones_are_kept(
    rollouts: VllmRollouts, server: Server, tmp_path: Path
) -> None:
    names = []
    for round_ in range(4):
        rollouts.sample(["a"], 1, temperature=1.0, seed=round_)
        names.append(server.asked[-1]["model"])

    assert len(set(names)) == 4
    assert server.loaded == names[-2:]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[-2:])
    rollouts.close()
    assert server.loaded == []
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_may_come_back_and_one_that_refuses_will_not(
    rollouts: VllmRollouts, server: Server
) -> None:
    server.down = True
    with pytest.raises(EngineUnavailable, match="no rollouts"):
        rollouts.sample(["a"], 1, temperature=1.0, seed=1)

    server.down, server.full = False, True
    with pytest.raises(EngineError, match="400: no slot"):
        rollouts.sample(["a"], 1, temperature=1.0, seed=1)


def test_a_server_that_has_lost_an_adapter_does_not_end_the_run(
    rollouts: VllmRollouts, server: Server
) -> None:
    rollouts.sample(["a"], 1, temperature=1.0, seed=1)
    server.loaded.clear()  # it was started anew

    for round_ in range(3):
        assert rollouts.sample(["a"], 1, temperature=1.0, seed=round_)
