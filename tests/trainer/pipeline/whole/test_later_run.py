"""What the next run does with what the last one left."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import ReleaseError, ReleaseNotReady
from models.ports import Release
from models.release.store import BASE_RELEASE, base_release
from models.settings import Settings
from models.training_settings import TrainSettings
from tests.trainer.pipeline.whole.running import (
    Calls,
    Stopped,
    forget,
    made,
    metrics,
    of_another_run,
    planned,
    train,
)
from tests.trainer.small_run import QUICK, SMALL, START_MS, fill, run_once
from trainer.pipeline.outcome import RunMemory, load_memory, save_memory

pytestmark = pytest.mark.model  # a minute of small training runs


def test_what_passed_and_could_not_be_promoted_is_promoted_by_the_next_run(quick, store) -> None:
    fill(quick)
    tried: list[Release] = []

    def too_slow(release: Release) -> None:
        tried.append(release)
        raise ReleaseNotReady("no profiler runs")

    def killed(release: Release) -> None:
        tried.append(release)
        raise Stopped

    with pytest.raises(ReleaseNotReady):
        train(quick, promote=too_slow)
    assert "palate_training_new_events" not in metrics(quick)  # not known, which is not 0
    assert metrics(quick)["palate_training_outcome/failed"] == 1
    assert metrics(quick)["palate_training_last_success_timestamp_seconds"] == 0
    with pytest.raises(Stopped):
        train(quick, promote=killed)
    calls = Calls()
    outcome = train(quick, calls, promote=tried.append)

    assert [one.id for one in tried] == [outcome.release] * 3
    assert tried[0].parent == BASE_RELEASE
    assert outcome.verdict is not None
    assert outcome.verdict.passed
    assert calls.stages == []  # nothing was learned or measured again
    assert metrics(quick)["palate_training_outcome/passed"] == 1
    assert planned(quick) is None


def test_a_release_that_may_not_serve_is_not_tried_again(quick, store) -> None:
    fill(quick)

    def refused(release: Release) -> None:
        raise ReleaseError(f"release {release.id!r} is refused")

    with pytest.raises(ReleaseError, match="is refused"):
        train(quick, promote=refused)
    assert planned(quick) is None
    assert metrics(quick)["palate_training_outcome/failed"] == 1


def test_what_passed_beside_a_release_that_serves_no_more_stays_with_the_reason(
    quick, store
) -> None:
    fill(quick)

    def too_slow(_: Release) -> None:
        raise ReleaseNotReady("no profiler runs")

    with pytest.raises(ReleaseNotReady):
        train(quick, promote=too_slow)
    first = planned(quick)
    store.publish(replace(base_release(quick, START_MS), id="by-hand"))
    promoted: list[Release] = []
    outcome = train(quick, promote=promoted.append, serving="by-hand")

    assert f"the run of {first} is not resumed" in outcome.notes[0]
    assert f"palate releases promote {first}" in outcome.notes[0]
    assert [one.id for one in promoted] == [outcome.release] != [first]
    assert promoted[0].parent == "by-hand"


def test_what_was_made_once_is_made_again_only_for_more_events_or_other_settings(
    quick, store
) -> None:
    fill(quick)
    first = made(store, train(quick))
    again = train(quick)
    assert (again.ending, again.new_events) == ("skipped", 240)
    assert f"{first.id} was made of this data, and was not promoted" in again.said
    assert store.ids() == [BASE_RELEASE, first.id]

    told = quick.train.model_copy(update={"metrics_file": quick.data_dir / "elsewhere.prom"})
    assert train(quick.model_copy(update={"train": told})).ending == "skipped"
    warmer = quick.train.warm_start.model_copy(update={"learning_rate": 2e-3})
    learning = quick.train.model_copy(update={"warm_start": warmer})
    other = made(store, train(quick.model_copy(update={"train": learning})))

    fill(quick, days=1, first_day=20)  # 12 events
    assert made(store, train(quick)).id not in (first.id, other.id)


def with_margin(settings: Settings, margin: float) -> Settings:
    gate = settings.train.gate.model_copy(update={"margin": margin})
    return settings.model_copy(update={"train": settings.train.model_copy(update={"gate": gate})})


def texts(settings: Settings) -> list[Path]:
    """What models wrote about users, as it is kept."""
    return list(settings.training_dir.glob("runs/**/answers-*.jsonl"))


def test_what_the_gate_held_back_is_judged_again_by_other_settings_and_not_trained_again(
    quick, store
) -> None:
    fill(quick)
    strict = with_margin(quick, 0.0)  # of an untrained embedder: the bound is not above 0
    refused = made(store, train(strict))
    assert train(strict).ending == "skipped"
    assert texts(quick)
    fill(quick, users=2, days=1, first_day=20)  # too little to train on
    calls, promoted = Calls(), []
    outcome = train(with_margin(quick, 1.0), calls, promote=promoted.append)
    release = made(store, outcome)

    assert not refused.metrics["gate"]["passed"]
    assert outcome.ending == "passed"
    assert f"{refused.id} is judged again, as {release.id}" in outcome.notes[0]
    assert promoted == [release] != [refused]
    assert release.files == refused.files
    assert release.data_range == refused.data_range
    assert texts(quick) == []
    assert "warm-start" not in calls.stages


def test_what_is_judged_again_is_made_as_before_where_its_run_is_gone(quick, store) -> None:
    fill(quick)
    refused = made(store, train(with_margin(quick, 0.0)))
    for kept in quick.training_dir.glob("runs/*/*/"):
        shutil.rmtree(kept)
    fill(quick, users=2, days=1, first_day=20)
    release = made(store, train(quick))

    assert release.id != refused.id
    assert release.files == refused.files


def test_what_is_judged_again_is_made_anew_where_its_checkpoints_are_of_another_run(
    quick, store
) -> None:
    """As after an update of Palate."""
    fill(quick)
    train(with_margin(quick, 0.0))
    (kept,) = quick.training_dir.glob("runs/*/*/warm-start")
    of_another_run(kept)
    outcome = train(quick)

    assert outcome.ending == "passed"
    assert "is of another run (another run" in outcome.notes[1]


def test_what_learned_of_a_user_who_is_to_be_forgotten_is_not_judged_again(quick, store) -> None:
    fill(quick)
    refused = made(store, train(with_margin(quick, 0.0)))
    forget(quick, "user-1")
    outcome = train(quick)

    assert outcome.notes == ()
    assert made(store, outcome).files != refused.files


REFRESH = QUICK | {
    "passes": 0.1,
    "sessions": SMALL["sessions"] | {"replay": 0.25, "horizon": 1},
    "rlso": SMALL["rlso"] | {"rounds": 99, "validation_users": 1},
}


def test_a_refresh_goes_on_from_the_serving_release_at_the_cost_of_what_is_new(
    settings, store
) -> None:
    short = settings.profile.model_copy(update={"max_new_tokens": 100})
    train = TrainSettings.model_validate(REFRESH)
    settings = settings.model_copy(update={"train": train, "profile": short})
    of: dict[str, int] = {}

    def advance(stage: str, _done: int, most: int) -> None:
        of[stage] = most

    fill(settings)
    first = run_once(settings, advance)
    rounds = of["rlso-1"]
    fill(settings, first_day=20, days=2)
    assert first.release
    refresh = run_once(settings, advance, serving=first.release)
    release = made(store, refresh)

    assert [stage.name for stage in first.stages] == ["warm-start", "rlso-1"]
    assert [stage.name for stage in refresh.stages] == ["rlso-1"]
    assert (first.new_events, refresh.new_events) == (240, 24)
    assert release.parent == first.release
    assert release.metrics["gate"]["against"] == [first.release, BASE_RELEASE]
    assert sum(release.data_range["next_offsets"].values()) == 264
    assert (rounds, of["rlso-1"]) == (3, 1)  # 48 sessions; then a quarter of them, and replayed


def test_a_release_that_was_rolled_back_is_no_bar_of_the_next_one(quick, store) -> None:
    fill(quick)
    lost = replace(base_release(quick, START_MS), id="lost", parent=BASE_RELEASE, kind="trained")
    store.publish(lost)
    save_memory(quick.training_dir, RunMemory(anchor="lost"))
    release = made(store, train(quick))

    assert release.metrics["gate"]["against"] == [BASE_RELEASE, BASE_RELEASE]
    assert load_memory(quick.training_dir).anchor == BASE_RELEASE


def test_too_little_that_is_new_is_skipped_with_the_reason(settings, store) -> None:
    fill(settings, users=2, days=2)
    outcome = train(settings)

    assert outcome.ending == "skipped"
    assert "4 events since the data of base-0" in outcome.said
    assert store.ids() == [BASE_RELEASE]
    assert metrics(settings)["palate_training_outcome/skipped"] == 1
