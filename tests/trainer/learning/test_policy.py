"""The policy on a tiny random model: what it samples, and how likely it says that was."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile

import pytest
import torch
from transformers import AutoModelForCausalLM

from models.engines.tokens import token_counter
from models.errors import TrainingError
from tests.models.pickled import as_pickle
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.learning.policy import Policy, PolicyOptions, Rollout

SETTINGS = PolicyOptions(rank=2, alpha=4, max_prompt_tokens=64, max_new_tokens=12)
PROMPTS = ["Now: red mug\nNow:", "Stable: lunch bag; flying ducks\nStable:", "Now:"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def policy(base: Path) -> Policy:
    return moved(Policy.load(base, SETTINGS))


def moved(policy: Policy, seed: int = 7) -> Policy:
    """The policy with every adapter weight drawn anew, so that the adapter counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in policy.parameters():
            weights.copy_(0.3 * torch.randn(weights.shape, generator=generator))
    return policy


def one_by_one(base: Path, rollouts: list[Rollout], temperature: float) -> list[float]:
    """Σ log p of each rollout in a row of its own, without padding, cache or adapter."""
    network = AutoModelForCausalLM.from_pretrained(base)
    sums = []
    for rollout in rollouts:
        ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
        with torch.no_grad():
            logits = network(input_ids=ids).logits[0, len(rollout.prompt_ids) - 1 : -1]
        chosen = torch.log_softmax(logits / temperature, dim=-1)
        sums.append(float(sum(chosen[n, t] for n, t in enumerate(rollout.completion_ids))))
    return sums


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_of_packed_rows_are_those_of_rows_of_their_own(
    base: Path, temperature: float
) -> None:
    policy = Policy.load(base, SETTINGS)  # a fresh adapter changes nothing
    rollouts = [one for group in policy.sample(PROMPTS, 3, seed=1) for one in group]
    mixed = rollouts[::2] + rollouts[1::2]  # prompts interleaved

    found = policy.log_probs(mixed, temperature=temperature)

    assert found.tolist() == pytest.approx(one_by_one(base, mixed, temperature), abs=1e-3)


def test_token_log_probs_sum_to_log_probs(policy: Policy) -> None:
    rollouts = [one for group in policy.sample(PROMPTS, 2, seed=1) for one in group]

    tokens = policy.token_log_probs(rollouts)

    assert [len(each) for each in tokens] == [len(one.completion_ids) for one in rollouts]
    assert policy.log_probs(rollouts).tolist() == pytest.approx([float(t.sum()) for t in tokens])


def test_the_same_seed_draws_the_same_completions_and_another_seed_others(policy: Policy) -> None:
    first, again = policy.sample(PROMPTS, 4, seed=5), policy.sample(PROMPTS, 4, seed=5)
    other = policy.sample(PROMPTS, 4, seed=6)

    assert first == again
    assert first != other


def test_greedy_takes_the_likeliest_token_each_time(base: Path) -> None:
    policy = Policy.load(base, SETTINGS)
    network = AutoModelForCausalLM.from_pretrained(base)

    groups = policy.sample(PROMPTS, 2, temperature=0.0, seed=0)

    for first, second in groups:
        assert first == second
        ids = torch.tensor([[*first.prompt_ids, *first.completion_ids]])
        best = network(input_ids=ids).logits[0].argmax(dim=-1)
        assert best[len(first.prompt_ids) - 1 : -1].tolist() == list(first.completion_ids)


def test_drawn_frequencies_are_the_probabilities(policy: Policy) -> None:
    drawn = policy.sample(PROMPTS[:1], 2_000, max_new_tokens=1, seed=3)[0]
    kinds = {one.completion_ids: one for one in drawn}

    probability = torch.exp(policy.log_probs(list(kinds.values()))).tolist()

    for (ids, _), p in zip(kinds.items(), probability, strict=True):
        count = sum(one.completion_ids == ids for one in drawn)
        assert abs(count - 2_000 * p) < 5 * (2_000 * p * (1 - p)) ** 0.5 + 1


def test_a_completion_ends_with_its_stop_token_or_is_cut_off(policy: Policy) -> None:
    for one in (one for group in policy.sample(PROMPTS, 64, seed=2) for one in group):
        stops = [token in policy.stop_ids for token in one.completion_ids]
        assert not any(stops[:-1])
        assert one.finished == stops[-1]
        assert one.finished or len(one.completion_ids) == SETTINGS.max_new_tokens
        assert "<|im_end|>" not in one.text


def test_sampling_leaves_the_policy_as_it_was_to_the_bit(policy: Policy) -> None:
    rollouts = policy.completion_tokens(PROMPTS, [" red mug"] * len(PROMPTS))
    before = policy.log_probs(rollouts)

    policy.sample(PROMPTS, 2, seed=1)

    assert torch.equal(policy.log_probs(rollouts), before)
    assert all(weights.requires_grad for weights in policy.parameters())


def test_the_reference_is_the_base_without_adapter(base: Path, policy: Policy) -> None:
    rollouts = [group[0] for group in policy.sample(PROMPTS, 1, seed=1)]
    with policy.reference():
        reference = policy.log_probs(rollouts)

    assert not reference.requires_grad
    assert reference.tolist() == pytest.approx(one_by_one(base, rollouts, 1.0), abs=1e-3)
    assert policy.log_probs(rollouts).tolist() != pytest.approx(reference.tolist(), abs=1e-2)


def test_the_reference_writes_as_if_the_policy_had_not_learned(base: Path, tmp_path: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    network.save_pretrained(tmp_path / "bfloat16")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copyfile(base / name, tmp_path / "bfloat16" / name)
    policy = moved(Policy.load(tmp_path / "bfloat16", SETTINGS))
    weights = {name: value.clone() for name, value in policy._network.state_dict().items()}

    with policy.reference():
        written = policy.sample(PROMPTS, 2, seed=3)

    assert written == Policy.load(tmp_path / "bfloat16", SETTINGS).sample(PROMPTS, 2, seed=3)
    assert written != policy.sample(PROMPTS, 2, seed=3)
    for name, value in policy._network.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_an_adapter_as_reference_writes_as_itself(base: Path, tmp_path: Path) -> None:
    before = moved(Policy.load(base, SETTINGS))
    before.save(tmp_path / "before")
    policy = moved(Policy.load(base, SETTINGS, reference=tmp_path / "before"), seed=8)

    with policy.reference():
        written = policy.sample(PROMPTS, 2, seed=3)

    alone = Policy.load(base, SETTINGS, adapter=tmp_path / "before")
    assert written == alone.sample(PROMPTS, 2, seed=3)


def test_the_reference_may_be_an_adapter_that_stays_as_it_was(
    base: Path, policy: Policy, tmp_path: Path
) -> None:
    policy.save(tmp_path / "start")
    learner = Policy.load(base, SETTINGS, adapter=tmp_path / "start", reference=tmp_path / "start")
    rollouts = [group[0] for group in learner.sample(PROMPTS, 1, seed=1)]
    before = learner.log_probs(rollouts).tolist()
    moved(learner, seed=8)

    with learner.reference():
        reference = learner.log_probs(rollouts)

    assert reference.tolist() == before
    assert learner.log_probs(rollouts).tolist() != pytest.approx(before, abs=1e-2)
    assert all(weights.requires_grad for weights in learner.parameters())


def test_gradients_reach_every_adapter_weight_and_no_other(policy: Policy) -> None:
    rollouts = policy.sample(PROMPTS[:1], 2, seed=1)[0]

    policy.log_probs(rollouts).sum().backward()

    learning = policy.parameters()
    assert len(learning) == 2 * 7 * 2  # layers, linear layers of each, A and B
    assert all(weights.grad is not None and weights.grad.any() for weights in learning)
    others = [w for w in policy._network.parameters() if all(w is not one for one in learning)]
    assert all(weights.grad is None for weights in others)


def test_a_saved_adapter_is_loaded_as_it_was_up_to_bfloat16(
    base: Path, policy: Policy, tmp_path: Path
) -> None:
    policy.save(tmp_path / "adapter")
    again = Policy.load(base, SETTINGS, adapter=tmp_path / "adapter")
    again.save(tmp_path / "again")

    assert set(policy.state()) == set(again.state())
    for name, tensor in policy.state().items():
        assert torch.equal(tensor.bfloat16().float(), again.state()[name])
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "adapter" / name).read_bytes() == (
            tmp_path / "again" / name
        ).read_bytes()


def test_a_saved_adapter_names_no_folder_of_this_machine(
    base: Path, policy: Policy, tmp_path: Path
) -> None:
    policy.save(tmp_path / "adapter")

    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())

    assert config["base_model_name_or_path"] == base.name
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(base.parent) not in json.dumps(config)


def test_state_puts_the_adapter_back_exactly(policy: Policy) -> None:
    rollouts = policy.sample(PROMPTS[:1], 2, seed=1)[0]
    before, state = policy.log_probs(rollouts), policy.state()

    moved(policy, seed=9)
    policy.load_state(state)

    assert torch.equal(policy.log_probs(rollouts), before)


def test_written_answers_end_with_the_end_of_turn(policy: Policy) -> None:
    short, cut = policy.completion_tokens(PROMPTS[:2], [" mug", " a text longer than twelve"])

    assert short.completion_ids[-1] in policy.stop_ids
    assert (short.text, short.finished) == (" mug", True)
    assert len(cut.completion_ids) == SETTINGS.max_new_tokens
    assert not cut.finished


def test_a_prompt_that_is_too_long_is_refused_with_the_setting_s_name(policy: Policy) -> None:
    assert not policy.fits("x" * 65)
    with pytest.raises(TrainingError, match="max_prompt_tokens"):
        policy.sample(["x" * 65], 1, seed=0)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no policy"):
        Policy.load(tmp_path, SETTINGS)


def test_an_adapter_that_was_cut_short_is_refused_with_its_folder(
    base: Path, policy: Policy, tmp_path: Path
) -> None:
    policy.save(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])

    with pytest.raises(TrainingError, match=rf"adapter {tmp_path}.*cut short.*restore it"):
        Policy.load(base, PolicyOptions(max_new_tokens=12), adapter=tmp_path)


@pytest.mark.parametrize(
    "text", ["", "red mug", "<|im_start|>user\nNow: tea<|im_end|>\n", "né\t😀"]
)
def test_tokens_are_counted_alike_with_and_without_the_model(
    base: Path, policy: Policy, text: str
) -> None:
    assert token_counter(base)(text) == policy.count_tokens(text) == len(policy.prompt_ids(text))


def test_pickled_weights_and_adapters_are_never_read(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    Policy.load(base, SETTINGS).save(tmp_path / "adapter")
    as_pickle(tmp_path / "adapter")

    for place in ("adapter", "reference"):
        with pytest.raises(TrainingError, match=r"adapter_model\.bin is a pickle"):
            Policy.load(base, SETTINGS, **{place: tmp_path / "adapter"})
    as_pickle(base)
    with pytest.raises(TrainingError, match=r"pytorch_model\.bin is a pickle"):
        Policy.load(base, SETTINGS)
