"""The loop: a planted preference is learned, a killed run goes on exactly, steps are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from models.errors import TrainingError
from tests.trainer.learning import planted
from trainer.learning.policy import Rollout
from trainer.learning.rlso import BEST, LAST, LOG_FILE, RlsoResult, train_rlso
from trainer.learning.rollouts import RolloutSource
from trainer.reward.rewards import ndcg

TRAINING, HELD_OUT = planted.users(0, 60), planted.users(60, 18)
SAYS_NOTHING = ndcg(np.zeros(len(planted.ITEMS)), HELD_OUT[0].target)  # all items tie
SHORT = planted.RLSO.model_copy(update={"rounds": 4, "prompts": 6, "batch": 3, "validate_every": 2})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A model this small only waits for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.model(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, source: Path) -> tuple[Path, RlsoResult]:
    """A run of SHORT that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train_rlso(planted.task(folder, source, SHORT, TRAINING, HELD_OUT))


def steps(folder: Path) -> list[dict[str, Any]]:
    """What the log holds, without how long things took."""
    records = map(orjson.loads, (folder / LOG_FILE).read_bytes().splitlines())
    return [{k: v for k, v in record.items() if not k.endswith("_s")} for record in records]


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("objective", ["rebel", "rloo"])
def test_a_planted_preference_is_learned_and_belongs_to_the_user(
    tmp_path: Path, source: Path, objective: str
) -> None:
    settings = planted.RLSO.model_copy(update={"objective": objective, "rounds": 20})

    result = train_rlso(planted.task(tmp_path, source, settings, TRAINING, HELD_OUT))

    before, *_, after = result.validations
    assert after.ndcg > before.ndcg + 0.2
    assert after.reward > before.reward + 0.2
    assert after.shuffled < after.ndcg - 0.2
    # A profile of another taste ranks below one that says nothing (.458; learned whole, .369),
    # and a model that was not trained says another's taste as often as the user's own (.600).
    assert after.shuffled < min(before.shuffled, SAYS_NOTHING) - 0.03
    assert result.adapter == tmp_path / BEST


class Killed(Exception):
    """Stands for SIGKILL between two rounds' checkpoints."""


class KilledSource:
    """A source of rollouts that dies when asked for the `calls`-th time."""

    def __init__(self, of: RolloutSource, calls: int) -> None:
        self._of = of
        self._left = calls

    def sample(
        self, prompts: Sequence[str], k: int, *, temperature: float, seed: int
    ) -> list[list[Rollout]]:
        """See RolloutSource."""
        self._left -= 1
        if self._left == 0:
            raise Killed
        return self._of.sample(prompts, k, temperature=temperature, seed=seed)


# The calls: start's validation, rounds 0 and 1, a validation, rounds 2 and 3, a validation.
@pytest.mark.parametrize(("calls", "checkpoint_every"), [(2, 1), (4, 1), (6, 1), (6, 3)])
def test_a_killed_run_goes_on_with_the_same_losses(
    tmp_path: Path,
    source: Path,
    whole: tuple[Path, RlsoResult],
    calls: int,
    checkpoint_every: int,
) -> None:
    settings = SHORT.model_copy(update={"checkpoint_every": checkpoint_every})
    killed = planted.task(tmp_path, source, settings, TRAINING, HELD_OUT)
    killed.source = KilledSource(killed.source, calls)
    with pytest.raises(Killed):
        train_rlso(killed)

    resumed = train_rlso(planted.task(tmp_path, source, settings, TRAINING, HELD_OUT))

    folder, expected = whole
    assert steps(tmp_path) == steps(folder)
    assert weights(tmp_path / LAST) == weights(folder / LAST)
    assert weights(tmp_path / BEST) == weights(folder / BEST)
    assert (resumed.steps, resumed.validations) == (expected.steps, expected.validations)


def test_a_finished_run_is_not_run_again(tmp_path: Path, source: Path) -> None:
    settings = SHORT.model_copy(update={"rounds": 1})
    first = train_rlso(planted.task(tmp_path, source, settings, TRAINING, HELD_OUT))
    before = steps(tmp_path)

    assert train_rlso(planted.task(tmp_path, source, settings, TRAINING, HELD_OUT)) == first
    assert steps(tmp_path) == before


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path, source: Path) -> None:
    settings = SHORT.model_copy(update={"rounds": 1})
    train_rlso(planted.task(tmp_path, source, settings, TRAINING))
    other = planted.task(tmp_path, source, settings, TRAINING)
    other.identity = "another model"

    with pytest.raises(TrainingError, match="another run"):
        train_rlso(other)


def test_optimiser_steps_are_counted(tmp_path: Path, source: Path) -> None:
    settings = SHORT.model_copy(update={"rounds": 2})

    result = train_rlso(planted.task(tmp_path, source, settings, TRAINING))

    told = [record["step"] for record in steps(tmp_path) if record["kind"] == "step"]
    skipped = [record["skipped"] for record in steps(tmp_path) if record["kind"] == "round"]
    batches = [-(-(settings.prompts - n) // settings.batch) for n in skipped]
    assert told == list(range(1, result.steps + 1))
    assert result.steps == settings.epochs * sum(batches)


def test_steps_that_are_not_the_optimisers_own_are_an_error(tmp_path: Path, source: Path) -> None:
    task = planted.task(tmp_path, source, SHORT, TRAINING)
    task.optimiser.taken = 5

    with pytest.raises(TrainingError, match=r"made \d+ steps where \d+ were counted"):
        train_rlso(task)


def test_the_first_step_of_a_round_is_taken_at_the_old_policy(
    whole: tuple[Path, RlsoResult],
) -> None:
    records = [record for record in steps(whole[0]) if record["kind"] == "step"]
    firsts = [
        now
        for before, now in zip([{"round": None}, *records], records, strict=False)
        if before["round"] != now["round"]
    ]
    assert [record["ratio"] for record in firsts] == [pytest.approx(0.0, abs=1e-5)] * len(firsts)
    assert firsts[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert records[-1]["kl"] > 1e-3


def test_gradients_accumulate_to_those_of_the_whole_batch(tmp_path: Path, source: Path) -> None:
    losses = []
    for micro_batch in (1, 2, 3):
        settings = SHORT.model_copy(update={"rounds": 1, "micro_batch": micro_batch, "kl": 0.1})
        folder = tmp_path / str(micro_batch)
        train_rlso(planted.task(folder, source, settings, TRAINING))
        records = [record for record in steps(folder) if record["kind"] == "step"]
        losses.append([(r["loss"], r["kl"], r["gradient"]) for r in records])

    for other in losses[1:]:
        torch.testing.assert_close(
            torch.tensor(losses[0]), torch.tensor(other), rtol=1e-3, atol=1e-4
        )


def test_prompts_whose_samples_are_all_worth_the_same_teach_nothing(
    tmp_path: Path, source: Path
) -> None:
    settings = SHORT.model_copy(update={"rounds": 1, "temperature": 1e-4})
    task = planted.task(tmp_path, source, settings, TRAINING)  # all samples are the likeliest one

    result = train_rlso(task)

    assert result.steps == 0
    assert steps(tmp_path)[-1]["skipped"] == settings.prompts
    assert result.adapter == tmp_path / LAST


def test_a_round_without_a_readable_prompt_is_passed_over(tmp_path: Path, source: Path) -> None:
    settings = SHORT.model_copy(update={"rounds": 1})
    task = planted.task(tmp_path, source, settings, TRAINING, HELD_OUT)
    task.read = lambda _: None

    assert train_rlso(task).steps == 0


def test_no_session_at_all_is_an_error(tmp_path: Path, source: Path) -> None:
    with pytest.raises(TrainingError, match="no session"):
        train_rlso(planted.task(tmp_path, source, SHORT, []))


def test_weights_that_are_no_numbers_stop_the_run(tmp_path: Path, source: Path) -> None:
    task = planted.task(tmp_path, source, SHORT, TRAINING)
    task.optimiser.set_rate(float("inf"))

    with pytest.raises(TrainingError, match=r"not finite; lower train\.rlso\.learning_rate"):
        train_rlso(task)
