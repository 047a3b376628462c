"""A whole run with real, tiny models: log → release and verdict."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.errors import ReleaseError, ReleaseNotReady, TrainingError
from models.ports import Release
from models.release_fit import held_back
from models.releases import BASE_RELEASE, FolderReleaseStore, adapter_folder, base_release
from models.schemas import Item, ProfileEdit
from models.settings import Settings
from models.training_settings import TrainSettings
from streams.codec import partition_for
from streams.event_log import SegmentLog
from tests.conftest import role_environment
from tests.streams.logged import record, record_of
from tests.trainer.learning.tiny_models import tiny_llama
from tests.trainer.small_run import DAY_MS, QUICK, SMALL, START_MS, fill, run_once, tiny_pair
from trainer.canary_prompts import canary_prompts
from trainer.corpus import Corpus
from trainer.learning import checkpoints
from trainer.learning.policy import Policy
from trainer.outcome import Outcome, load_memory
from trainer.run_log import RunLog

pytestmark = pytest.mark.service  # a minute of small training runs


@dataclass
class Stopped(Exception):
    """Stands for a kill."""


@dataclass
class Calls:
    """What a run reports; stops it at a stage."""

    stop_at: str = ""
    stages: list[str] = field(default_factory=list)

    def advance(self, stage: str, done: int, of: int) -> None:
        self.stages.append(stage)
        if stage == self.stop_at:
            raise Stopped


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    return tiny_pair(tmp_path_factory.mktemp("models"))


@pytest.fixture
def settings(make_settings, models) -> Settings:
    language, embedder = map(str, models)
    return make_settings(train=SMALL, profile={"model": language}, embedder={"model": embedder})


@pytest.fixture
def quick(settings: Settings) -> Settings:
    train = TrainSettings.model_validate(QUICK)
    return settings.model_copy(update={"train": train})


@pytest.fixture
def store(settings: Settings) -> FolderReleaseStore:
    found = FolderReleaseStore(settings.releases_dir)
    found.publish(base_release(settings, START_MS))
    return found


def train(
    settings: Settings,
    calls: Calls | None = None,
    *,
    promote: Callable[[Release], None] | None = None,
    serving: str = BASE_RELEASE,
) -> Outcome:
    return run_once(settings, (calls or Calls()).advance, promote, serving)


def planned(settings: Settings) -> str:
    return orjson.loads((settings.training_dir / "plan.json").read_bytes())["release"]


def metrics(settings: Settings) -> dict[str, float]:
    text = (settings.training_dir / "metrics.prom").read_text()
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def made(store, outcome: Outcome) -> Release:
    assert outcome.release
    return store.verify(outcome.release)


def test_a_run_leaves_a_release_that_says_all_about_itself(settings, store) -> None:
    fill(settings)
    outcome = train(settings)
    release = made(store, outcome)

    assert outcome.ending in ("passed", "refused")
    assert [stage.name for stage in outcome.stages] == ["warm-start", "contrastive-1", "rlso-1"]
    assert outcome.verdict is not None
    assert outcome.verdict.serving == BASE_RELEASE
    assert (release.kind, release.parent) == ("trained", BASE_RELEASE)
    assert release.metrics["gate"]["passed"] == outcome.verdict.passed
    assert len(release.metrics["gate"]["checks"]) == len(outcome.verdict.checks)
    for figure in ("ranking", "profile_only", "shuffled", "grounding"):
        found = release.metrics[figure]
        assert found["low"] <= found["mean"] <= found["high"]
    assert sum(release.data_range["next_offsets"].values()) == outcome.new_events == 240
    assert release.data_range["train_end"] < release.data_range["end"]
    assert release.window_spec == settings.windows.model_dump(mode="json")
    assert release.base_model_hash
    assert all(line.logprob < 0 and line.base_logprob < 0 for line in release.canary)
    corpus = Corpus.from_log(SegmentLog(settings.log_dir), settings)
    assert {line.prompt for line in release.canary} <= set(canary_prompts(corpus, 0))
    folder = adapter_folder(store, release)
    assert folder is not None
    assert (folder / "adapter_model.safetensors").stat().st_size > 0
    told = metrics(settings)
    assert told[f"palate_training_outcome/{outcome.ending}"] == 1
    assert told["palate_training_optimiser_steps/warm-start"] == 2
    assert told["palate_training_new_events"] == 240
    assert told["palate_training_seconds"] == outcome.seconds > 0


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
    until = log.next_offset("items", 0)
    record(log, settings, (record_of("items", 0, until, item) for item in more_items))

    calls = Calls()
    outcome = train(settings, calls)

    assert outcome.release == name
    assert "warm-start" not in calls.stages
    (log,) = Path(settings.training_dir).glob("runs/*/warm-start/warm-start.jsonl")
    steps = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert [step["round"] for step in steps if step["kind"] == "step"] == [0, 1]
    assert not (settings.training_dir / "plan.json").exists()


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


def forget(settings: Settings, user_id: str) -> None:
    """The wish, logged after all that the user did."""
    log = SegmentLog(settings.log_dir)
    partition = partition_for(user_id.encode(), settings.kafka.partitions)
    wish = ProfileEdit(edit_id="1", user_id=user_id, action="forget", timestamp=START_MS)
    at = START_MS + 1_000 * DAY_MS
    record(log, settings, [record_of("profile-edits", partition, 0, wish, at)])


def test_a_wish_to_be_forgotten_ends_the_run_that_had_read_the_user(quick, store) -> None:
    fill(quick)
    with pytest.raises(Stopped):
        train(quick, Calls(stop_at="warm-start"))
    (before,) = quick.training_dir.glob("runs/*")
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
    (kept,) = quick.training_dir.glob("runs/*/warm-start")
    state = checkpoints.load(kept, checkpoints._read(kept / "checkpoint.pt")["identity"])
    assert state is not None
    checkpoints.save(kept, state, "another run")

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
    (before,) = quick.training_dir.glob("runs/*")
    warmer = quick.train.warm_start.model_copy(update={"learning_rate": 2e-3})
    changed = quick.train.model_copy(update={"warm_start": warmer})
    calls = Calls()
    outcome = train(quick.model_copy(update={"train": changed}), calls)

    assert "warm-start" in calls.stages
    assert f"{before.name} in" in outcome.notes[0]


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
    assert not (quick.training_dir / "plan.json").exists()


def test_a_release_that_may_not_serve_is_not_tried_again(quick, store) -> None:
    fill(quick)

    def refused(release: Release) -> None:
        raise ReleaseError(f"release {release.id!r} is refused")

    with pytest.raises(ReleaseError, match="is refused"):
        train(quick, promote=refused)
    assert not (quick.training_dir / "plan.json").exists()
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

    assert f"the run of {first} is not gone on with" in outcome.notes[0]
    assert f"palate releases promote {first}" in outcome.notes[0]
    assert [one.id for one in promoted] == [outcome.release] != [first]
    assert promoted[0].parent == "by-hand"


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


def test_nothing_to_learn_with_is_said_before_anything_is_measured(quick, store) -> None:
    nothing = QUICK | {"warm_start": {"steps": 0}}
    settings = quick.model_copy(update={"train": TrainSettings.model_validate(nothing)})
    fill(settings)
    calls = Calls()

    with pytest.raises(TrainingError, match=r"nothing was trained; raise train\.warm_start\.steps"):
        train(settings, calls)
    assert calls.stages == []


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
    (path,) = settings.training_dir.glob("runs/*/warm-start/warm-start.jsonl")
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


def policies() -> set[Policy]:
    """The models in memory; tracebacks of tests before may hold some."""
    return {one for one in gc.get_objects() if type(one) is Policy}


def test_no_model_is_held_beside_the_one_that_learns(quick, store) -> None:
    held: list[set[Policy]] = []

    def look(stage: str, *_: int) -> None:
        if stage == "warm-start":
            held.append(policies())
            raise Stopped

    fill(quick)
    gc.collect()
    before = policies()
    with pytest.raises(Stopped):
        run_once(quick, look)
    assert len(held[0] - before) == 1


# RLSO alone, in rounds of two prompts, for a tenth of the sessions: users' next purchase.
REFRESH = QUICK | {
    "passes": 0.1,
    "sessions": SMALL["sessions"] | {"replay": 0.25, "horizon": 1},
    "policy": SMALL["policy"] | {"max_new_tokens": 100},
    "rlso": SMALL["rlso"] | {"rounds": 99, "validation_users": 1},
}


def test_a_refresh_goes_on_from_the_serving_release_at_the_cost_of_what_is_new(
    settings, store
) -> None:
    settings = settings.model_copy(update={"train": TrainSettings.model_validate(REFRESH)})
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


def test_too_little_that_is_new_is_skipped_with_the_reason(settings, store) -> None:
    fill(settings, users=2, days=2)
    outcome = train(settings)

    assert outcome.ending == "skipped"
    assert "4 events since the data of base-0" in outcome.said
    assert store.ids() == [BASE_RELEASE]
    assert metrics(settings)["palate_training_outcome/skipped"] == 1


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
    import models.releases as releases
    from models.errors import ReleaseError

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fill(settings)
    monkeypatch.setattr(releases, "copy", full)
    with pytest.raises(ReleaseError, match="No space left"):
        train(settings)
    assert store.ids() == [BASE_RELEASE]
    monkeypatch.undo()

    assert made(store, train(settings)).kind == "trained"
