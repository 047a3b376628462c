"""Logs, models and disks that a run cannot work with: a clear error, the old release untouched."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from models.errors import ReleaseError, TrainingError
from models.ports import Release
from models.release.compatibility import held_back
from models.release.store import BASE_RELEASE, base_release
from models.training_settings import TrainSettings
from tests.trainer.learning.tiny_models import tiny_llama
from tests.trainer.pipeline.whole.running import Calls, made, metrics, planned, train
from tests.trainer.small_run import DAY_MS, QUICK, SMALL, START_MS, fill
from trainer.pipeline.json_state import RunLog

pytestmark = pytest.mark.model  # a minute of small training runs


def test_metrics_that_cannot_be_written_lose_no_release(quick, store, caplog) -> None:
    fill(quick)
    (quick.training_dir / "metrics.prom").mkdir(parents=True)
    promoted: list[Release] = []
    outcome = train(quick, promote=promoted.append)

    assert [one.id for one in promoted] == [outcome.release]
    assert "metrics were not written" in caplog.text


def test_a_disk_that_is_full_anywhere_is_a_clear_error_that_is_told(
    quick, store, monkeypatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "some.jsonl")

    fill(quick)
    monkeypatch.setattr(RunLog, "write", full)
    with pytest.raises(TrainingError, match=r"No space left on device: 'some\.jsonl'.*Make room"):
        train(quick)
    assert metrics(quick)["palate_training_outcome/failed"] == 1
    monkeypatch.undo()

    assert train(quick).ending == "passed"


def test_an_adapter_for_another_model_is_not_gone_on_from(quick, store, tmp_path) -> None:
    fill(quick)
    first = made(store, train(quick))
    other = tiny_llama(tmp_path / "other", seed=1, positions=2_048)
    changed = quick.model_copy(
        update={"profile": quick.profile.model_copy(update={"model": str(other)})}
    )
    outcome = train(changed, serving=first.id)
    second = made(store, outcome)

    assert outcome.ending == "passed"
    assert [stage.name for stage in outcome.stages] == ["warm-start"]
    assert outcome.new_events == 240  # the new model has seen none of them
    assert "training begins anew, with a warm start" in outcome.notes[0]
    assert second.base_model == str(other)
    assert second.metrics["gate"]["against"] == [first.id, BASE_RELEASE]


def test_nothing_to_learn_with_is_said_before_the_log_is_read(quick, store) -> None:
    nothing = QUICK | {"warm_start": {"steps": 0}}
    settings = quick.model_copy(update={"train": TrainSettings.model_validate(nothing)})
    fill(settings)
    calls = Calls()

    with pytest.raises(TrainingError, match=r"nothing would be trained.*train\.warm_start\.steps"):
        train(settings, calls)
    assert calls.stages == []
    assert planned(settings) is None


def test_old_history_is_learned_from_and_no_ground_to_compare_a_later_release_on(
    quick, store
) -> None:
    """The serving release learned from a later time than all that was imported after it."""
    later = {"train_end": START_MS + 1_000 * DAY_MS, "next_offsets": {"0": 0}}
    store.publish(replace(base_release(quick, START_MS), id="later", data_range=later))
    fill(quick)
    outcome = train(quick, serving="later")

    assert outcome.ending == "refused"
    assert outcome.new_events == 240
    assert outcome.said.startswith("window: days from the end of what later was trained on")
    assert made(store, outcome).data_range["train_end"] == later["train_end"]


def test_without_a_user_in_the_gates_window_nothing_may_serve(quick, store) -> None:
    """Everybody's last purchases are of items that are in no catalogue."""
    sessions = SMALL["sessions"] | {"test": 0.01}
    settings = quick.model_copy(
        update={"train": TrainSettings.model_validate(QUICK | {"sessions": sessions})}
    )
    fill(settings, unknown_from=19)
    outcome = train(settings)

    assert outcome.ending == "refused"
    assert made(store, outcome).metrics["ranking"] is None


def test_an_empty_log_is_a_clear_error_and_no_release(make_settings, models, store) -> None:
    train_settings = SMALL | {"sessions": {"min_new_events": 0}}
    settings = make_settings(train=train_settings, profile={"model": str(models[0])})
    with pytest.raises(TrainingError, match="no interactions"):
        train(settings)

    assert store.ids() == [BASE_RELEASE]
    assert metrics(settings)["palate_training_outcome/failed"] == 1


def test_the_log_of_one_user_makes_nothing_that_may_serve(settings, store) -> None:
    fill(settings, users=1, days=12)
    outcome = train(settings)

    assert outcome.ending == "refused"
    assert "users in the gate's window" in outcome.said
    assert held_back(store.get(outcome.release)) == outcome.said


def test_a_full_disk_while_releasing_leaves_the_old_release_alone(
    settings, store, monkeypatch
) -> None:
    import models.release.store as releases

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fill(settings)
    monkeypatch.setattr(releases, "copy", full)
    with pytest.raises(ReleaseError, match="No space left"):
        train(settings)
    assert store.ids() == [BASE_RELEASE]
    monkeypatch.undo()

    assert made(store, train(settings)).kind == "trained"
