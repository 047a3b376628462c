"""A run that was cut short goes on, or says why it begins anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from models.release.store import BASE_RELEASE, FolderReleaseStore, base_release
from models.schemas import Item
from models.settings import Settings
from models.training_settings import TrainSettings
from streams.event_log import SegmentLog
from tests.conftest import role_environment
from tests.streams.logged import record_items
from tests.trainer.pipeline.whole.running import (
    Calls,
    Stopped,
    forget,
    metrics,
    of_another_run,
    planned,
    train,
)
from tests.trainer.small_run import QUICK, SMALL, START_MS, fill, run_once
from trainer.pipeline.json_state import RunLog
from trainer.pipeline.outcome import load_memory

pytestmark = pytest.mark.model  # a minute of small training runs


def test_a_run_that_was_killed_goes_on_where_it_was_and_makes_the_release_it_had_planned(
    settings, store
) -> None:
    fill(settings)
    with pytest.raises(Stopped):
        train(settings, Calls(stop_at="rlso-1"))
    assert store.ids() == [BASE_RELEASE]
    name = planned(settings)
    more_items = [Item(item_id="new", title="tea cup number 9")]
    log = SegmentLog(settings.log_dir)
    record_items(log, settings, more_items)

    calls = Calls()
    outcome = train(settings, calls)

    assert outcome.release == name
    assert "warm-start" not in calls.stages
    (log,) = Path(settings.training_dir).glob("runs/*/*/warm-start/warm-start.jsonl")
    steps = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert [step["round"] for step in steps if step["kind"] == "step"] == [0, 1]
    assert planned(settings) is None


@pytest.mark.parametrize("stop", [SystemExit(0), KeyboardInterrupt()])
def test_a_run_that_is_told_to_stop_has_not_failed(quick, store, stop: BaseException) -> None:
    def stopped(*_: object) -> None:
        raise stop

    fill(quick, users=2, days=2)
    assert train(quick).ending == "skipped"
    fill(quick, first_day=2)
    with pytest.raises(type(stop)):
        run_once(quick, stopped)
    assert metrics(quick)["palate_training_outcome/skipped"] == 1
    assert load_memory(quick.training_dir).endings == {"skipped": 1}
    assert planned(quick)


def test_a_wish_to_be_forgotten_ends_the_run_that_had_read_the_user(quick, store) -> None:
    fill(quick)
    with pytest.raises(Stopped):
        train(quick, Calls(stop_at="warm-start"))
    (before,) = quick.training_dir.glob("runs/*/*/")
    (before / "of the first").touch()
    forget(quick, "user-1")

    outcome = train(quick)

    assert outcome.ending == "passed"
    assert "1 users asked to be forgotten" in outcome.notes[0]
    assert not (before / "of the first").exists()


def test_a_checkpoint_of_another_run_is_begun_anew_with_the_reason(quick, store) -> None:
    """As after an update of Palate, while a run had been cut short."""
    fill(quick)
    with pytest.raises(Stopped):
        train(quick, Calls(stop_at=f"gate: {BASE_RELEASE}"))
    (kept,) = quick.training_dir.glob("runs/*/*/warm-start")
    of_another_run(kept)

    outcome = train(quick)

    assert outcome.ending == "passed"
    assert "is of another run (another run" in outcome.notes[0]


def test_a_run_that_was_killed_goes_on_after_a_change_of_what_is_not_learned_with(
    quick, store
) -> None:
    fill(quick)
    with pytest.raises(Stopped):
        train(quick, Calls(stop_at=f"gate: {BASE_RELEASE}"))
    told = {"pushgateway": "", "metrics_file": quick.data_dir / "elsewhere.prom"}
    gate = quick.train.gate.model_copy(update={"users": 3})
    changed = quick.train.model_copy(update=told | {"gate": gate})
    calls = Calls()
    outcome = train(quick.model_copy(update={"train": changed}), calls)

    assert "warm-start" not in calls.stages
    assert outcome.notes == ()


def test_a_run_that_was_killed_begins_anew_with_other_settings_and_says_so(quick, store) -> None:
    fill(quick)
    with pytest.raises(Stopped):
        train(quick, Calls(stop_at=f"gate: {BASE_RELEASE}"))
    (before,) = quick.training_dir.glob("runs/*/*/")
    warmer = quick.train.warm_start.model_copy(update={"learning_rate": 2e-3})
    changed = quick.train.model_copy(update={"warm_start": warmer})
    calls = Calls()
    outcome = train(quick.model_copy(update={"train": changed}), calls)

    assert "warm-start" in calls.stages
    assert f"{before.name} in" in outcome.notes[0]


def killed_at(progress: str, settings: Settings) -> None:
    """Another process trains, and is killed as soon as it says so."""
    training = subprocess.Popen(
        [sys.executable, "-m", "tests.trainer.small_run"],
        env={**os.environ, **role_environment(settings)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert training.stderr is not None
    with training:
        for line in training.stderr:
            if progress in line:
                training.kill()
                break
    assert training.returncode == -signal.SIGKILL


def losses(settings: Settings) -> list[tuple[int, float]]:
    (path,) = settings.training_dir.glob("runs/*/*/warm-start/warm-start.jsonl")
    return [(step["round"], step["loss"]) for step in RunLog(path).records("step")]


def test_a_process_that_is_killed_loses_no_step_and_repeats_none(quick, store, tmp_path) -> None:
    steps = SMALL["warm_start"] | {"steps": 6}
    train_settings = TrainSettings.model_validate(QUICK | {"warm_start": steps})
    settings = quick.model_copy(update={"train": train_settings})
    straight = settings.model_copy(update={"data_dir": tmp_path / "straight"})
    for one in (settings, straight):
        fill(one)
    killed_at("('warm-start', 3, 6)", settings)
    assert store.ids() == [BASE_RELEASE]
    name = planned(settings)

    outcome = train(settings)
    FolderReleaseStore(straight.releases_dir).publish(base_release(straight, START_MS))
    train(straight)

    assert outcome.release == name
    assert [step for step, _ in losses(settings)] == list(range(6))
    assert losses(settings) == losses(straight)
