"""The supervised loop on a tiny random model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from models.errors import TrainingError
from models.training_settings import WarmStartSettings
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.data.target_answers import Example
from trainer.learning import warm_start
from trainer.learning.policy import Policy, PolicyOptions
from trainer.learning.warm_start import LOG, train
from trainer.pipeline.json_state import RunLog

POLICY = PolicyOptions(rank=4, alpha=8, max_prompt_tokens=64, max_new_tokens=12)
SETTINGS = WarmStartSettings(
    learning_rate=0.02, batch=4, micro_batch=4, steps=6, decay=6, checkpoint_every=2, seed=3
)
EXAMPLES = [
    Example(f"Now: {colour} mug {n}\nNow:", f" mug {n}")
    for n in range(3)
    for colour in ("red", "pink", "grey")
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in RunLog(folder / LOG).records("step")]


def same(one: Policy, other: Policy) -> bool:
    mine, theirs = one.state(), other.state()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_loss_falls_and_the_steps_are_the_optimiser_s(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a: (taken.append(1), step(self, *a))[1]
    )
    longer = SETTINGS.model_copy(update={"steps": 30, "decay": 30, "micro_batch": 1})

    done = train(Policy.load(base, POLICY), EXAMPLES, longer, tmp_path)

    told = losses(tmp_path)
    assert done.steps == len(taken) == len(told) == 30  # 4 micro-batches are one step
    assert told[-1] < told[0] - 0.5
    assert done.loss == told[-1]


def test_the_loss_is_the_mean_over_the_tokens_of_all_answers(base: Path, tmp_path: Path) -> None:
    policy = Policy.load(base, POLICY)
    pair = [Example("Now:", " mug"), Example("Stable:", " red t-shirt")]
    rollouts = policy.completion_tokens([one.prompt for one in pair], [one.answer for one in pair])
    with torch.no_grad():
        sums = policy.log_probs(rollouts).tolist()
    # byte-level: " mug" and the end of turn are 5 tokens, " red t-shirt" 12, cut to 11 + 1 = 12
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    assert lengths == [5, 12]

    train(policy, pair[:1] * 2, SETTINGS.model_copy(update={"steps": 1, "batch": 2}), tmp_path)

    assert losses(tmp_path)[0] == pytest.approx(-sums[0] / 5, abs=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_how_a_step_is_cut_up_changes_nothing(base: Path, tmp_path: Path, micro_batch: int) -> None:
    whole, cut = Policy.load(base, POLICY), Policy.load(base, POLICY)

    train(whole, EXAMPLES, SETTINGS, tmp_path / "whole")
    train(
        cut,
        EXAMPLES,
        SETTINGS.model_copy(update={"micro_batch": micro_batch}),
        tmp_path / "cut",
    )

    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


def test_a_killed_run_goes_on_to_the_same_losses_and_weights(base: Path, tmp_path: Path) -> None:
    whole = Policy.load(base, POLICY)
    train(whole, EXAMPLES, SETTINGS, tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(step: int, _loss: float) -> None:
        if step == 3:  # after the checkpoint of step 2, which is one step behind by now
            raise Killed

    with pytest.raises(Killed):
        train(Policy.load(base, POLICY), EXAMPLES, SETTINGS, tmp_path / "cut", on_step=kill)
    resumed = Policy.load(base, POLICY)
    taken: list[int] = []
    train(resumed, EXAMPLES, SETTINGS, tmp_path / "cut", on_step=lambda step, _: taken.append(step))

    assert taken == [3, 4, 5, 6]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert same(resumed, whole)


def test_a_run_can_be_prolonged(base: Path, tmp_path: Path) -> None:
    whole, longer = Policy.load(base, POLICY), Policy.load(base, POLICY)
    train(whole, EXAMPLES, SETTINGS, tmp_path / "whole")

    train(longer, EXAMPLES, SETTINGS.model_copy(update={"steps": 3}), tmp_path / "longer")
    train(longer, EXAMPLES, SETTINGS, tmp_path / "longer")

    assert losses(tmp_path / "longer") == losses(tmp_path / "whole")
    assert same(longer, whole)


def test_a_finished_run_is_not_trained_further(base: Path, tmp_path: Path) -> None:
    first = Policy.load(base, POLICY)
    done = train(first, EXAMPLES, SETTINGS, tmp_path)
    again = Policy.load(base, POLICY)

    assert train(again, EXAMPLES, SETTINGS, tmp_path) == done
    assert same(first, again)


def test_a_checkpoint_of_other_examples_or_settings_is_refused(base: Path, tmp_path: Path) -> None:
    train(Policy.load(base, POLICY), EXAMPLES, SETTINGS, tmp_path)

    with pytest.raises(TrainingError, match="another run"):
        train(Policy.load(base, POLICY), EXAMPLES[1:], SETTINGS, tmp_path)
    faster = SETTINGS.model_copy(update={"learning_rate": 0.03})
    with pytest.raises(TrainingError, match="another run"):
        train(Policy.load(base, POLICY), EXAMPLES, faster, tmp_path)


def test_every_example_comes_once_before_any_comes_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    batch = warm_start._batch
    monkeypatch.setattr(warm_start, "_batch", lambda *a: [seen.append(n) or n for n in batch(*a)])

    train(Policy.load(base, POLICY), EXAMPLES, SETTINGS, tmp_path)

    assert len(seen) == 6 * 4
    assert sorted(seen[:9]) == sorted(seen[9:18]) == list(range(9))
    assert seen[:9] != seen[9:18]


def test_the_learning_rate_rises_for_a_twentieth_of_its_decay_then_falls_to_a_tenth(
    base: Path, tmp_path: Path
) -> None:
    longer = SETTINGS.model_copy(update={"steps": 21, "decay": 20, "batch": 1})

    train(Policy.load(base, POLICY), EXAMPLES, longer, tmp_path)

    rates = [record["rate"] for record in RunLog(tmp_path / LOG).records("step")]
    assert rates[0] == max(rates) == SETTINGS.learning_rate
    assert rates[20] == pytest.approx(SETTINGS.learning_rate / 10)


def test_validation_losses_are_logged_at_checkpoints(base: Path, tmp_path: Path) -> None:
    policy = Policy.load(base, POLICY)
    rollouts = policy.completion_tokens([EXAMPLES[0].prompt], [EXAMPLES[0].answer])

    train(policy, EXAMPLES, SETTINGS, tmp_path, validation=EXAMPLES[:1])

    logged = [record["loss"] for record in RunLog(tmp_path / LOG).records("validation")]
    with torch.no_grad():
        last = -float(policy.log_probs(rollouts)) / len(rollouts[0].completion_ids)
    assert len(logged) == 3  # after steps 2, 4, 6
    assert logged[-1] == pytest.approx(last, abs=1e-5)


def test_what_is_too_long_is_left_out_and_nothing_left_is_said(base: Path, tmp_path: Path) -> None:
    long_prompt, long_answer = Example("x" * 65, " mug"), Example("Now:", " " + "x" * 12)

    done = train(
        Policy.load(base, POLICY), [*EXAMPLES, long_prompt, long_answer], SETTINGS, tmp_path
    )

    assert done.examples == len(EXAMPLES)
    with pytest.raises(TrainingError, match="max_prompt_tokens"):
        train(Policy.load(base, POLICY), [long_prompt, long_answer], SETTINGS, tmp_path / "none")


def test_a_loss_that_is_no_number_ends_the_run(base: Path, tmp_path: Path) -> None:
    policy = Policy.load(base, POLICY)
    with torch.no_grad():
        policy.parameters()[0].fill_(math.nan)

    with pytest.raises(TrainingError, match="not finite"):
        train(policy, EXAMPLES, SETTINGS, tmp_path)
