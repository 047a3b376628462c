"""A whole run with real, tiny models: log → release and verdict."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.embedder import SentenceEmbedder
from models.errors import TrainingError
from models.model_files import embedder_model, language_model
from models.ports import Release
from models.release_fit import held_back
from models.releases import BASE_RELEASE, FolderReleaseStore, adapter_folder, base_release
from models.schemas import Interaction, Item
from models.settings import Settings
from streams.codec import partition_for
from streams.event_log import SegmentLog
from tests.streams.logged import record, record_of
from tests.trainer.learning.tiny_embedder import tiny_embedder
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.outcome import Outcome
from trainer.run import Tools, run

pytestmark = pytest.mark.service  # a minute of small training runs

START_MS, DAY_MS = 1_300_000_000_000, 86_400_000
THEMES = ("tea cup", "cat mug", "lace ribbon", "felt bird", "soap dish")
SMALL = {
    "sessions": {"min_history": 2, "min_new_events": 10, "validation": 0.2, "test": 0.2},
    "policy": {"max_new_tokens": 160, "max_prompt_tokens": 1_600, "rank": 2},
    "warm_start": {"steps": 2, "batch": 2, "micro_batch": 2, "checkpoint_every": 1},
    "contrastive": {"steps": 2, "users": 6, "validation_users": 4, "batch": 4},
    "rlso": {"rounds": 1, "samples": 2, "prompts": 2, "batch": 2, "validation_users": 4},
    "gate": {"users": 6, "min_users": 2, "resamples": 100},
}


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
    """Language model and embedder."""
    words = {*" ".join(THEMES).split(), "number", *map(str, range(24))}
    return (
        tiny_llama(tmp_path_factory.mktemp("llama"), positions=2_048),
        tiny_embedder(tmp_path_factory.mktemp("embedder"), sorted(words)),
    )


@pytest.fixture
def settings(make_settings, models) -> Settings:
    language, embedder = map(str, models)
    return make_settings(train=SMALL, profile={"model": language}, embedder={"model": embedder})


@pytest.fixture
def store(settings: Settings) -> FolderReleaseStore:
    found = FolderReleaseStore(settings.releases_dir)
    found.publish(base_release(settings, START_MS))
    return found


def fill(settings: Settings, users: int = 12, days: int = 20) -> None:
    """Every user buys one item of their theme a day."""
    log = SegmentLog(settings.log_dir)
    items = [
        Item(item_id=f"{theme} {n}", title=f"{theme} number {n}")
        for theme in THEMES
        for n in range(24)
    ]
    record(log, settings, (record_of("items", 0, n, item) for n, item in enumerate(items)))
    bought = defaultdict(list)
    for day in range(days):
        for user in range(users):
            name, theme = f"user-{user}", THEMES[user % len(THEMES)]
            bought[partition_for(name.encode(), settings.kafka.partitions)].append(
                Interaction(
                    event_id=f"{user}-{day}",
                    user_id=name,
                    item_id=f"{theme} {(user + day) % 24}",
                    type="purchase",
                    timestamp=START_MS + day * DAY_MS + user * 1000,
                )
            )
    for partition, events in bought.items():
        rows = [
            record_of("interactions", partition, offset, event, event.timestamp)
            for offset, event in enumerate(events)
        ]
        record(log, settings, rows)


def train(settings: Settings, store, calls: Calls | None = None) -> Outcome:
    tools = Tools(
        releases=store,
        model=language_model(settings),
        embedder=embedder_model(settings),
        open_embedder=lambda source: SentenceEmbedder(source, settings.embedder),
        advance=(calls or Calls()).advance,
    )
    return run(settings, tools, BASE_RELEASE)


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
    outcome = train(settings, store)
    release = made(store, outcome)

    assert outcome.ending in ("passed", "refused")
    assert [stage.name for stage in outcome.stages] == ["warm-start", "contrastive-1", "rlso-1"]
    assert outcome.verdict is not None
    assert outcome.verdict.serving == BASE_RELEASE
    assert (release.kind, release.parent) == ("trained", BASE_RELEASE)
    assert release.metrics["gate"]["passed"] == outcome.verdict.passed
    assert len(release.metrics["gate"]["checks"]) == len(outcome.verdict.checks)
    assert sum(release.data_range["next_offsets"].values()) == outcome.new_events == 240
    assert release.data_range["train_end"] < release.data_range["end"]
    assert release.window_spec == settings.windows.model_dump(mode="json")
    assert release.base_model_hash
    assert all(line.logprob < 0 and line.base_logprob < 0 for line in release.canary)
    folder = adapter_folder(store, release)
    assert folder is not None
    assert (folder / "adapter_model.safetensors").stat().st_size > 0
    told = metrics(settings)
    assert told[f"palate_training_outcome/{outcome.ending}"] == 1
    assert told["palate_training_optimiser_steps/warm-start"] == 2
    assert told["palate_training_new_events"] == 240


def test_a_run_that_was_killed_goes_on_where_it_was_and_makes_the_release_it_had_planned(
    settings, store
) -> None:
    fill(settings)
    with pytest.raises(Stopped):
        train(settings, store, Calls(stop_at="rlso-1"))
    assert store.ids() == [BASE_RELEASE]
    planned = orjson.loads((settings.training_dir / "plan.json").read_bytes())["release"]

    calls = Calls()
    outcome = train(settings, store, calls)

    assert outcome.release == planned
    assert "warm-start" not in calls.stages
    (log,) = Path(settings.training_dir).glob("runs/*/warm-start/warm-start.jsonl")
    steps = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert [step["round"] for step in steps if step["kind"] == "step"] == [0, 1]
    assert not (settings.training_dir / "plan.json").exists()


def test_too_little_that_is_new_is_skipped_with_the_reason(settings, store) -> None:
    fill(settings, users=2, days=2)
    outcome = train(settings, store)

    assert outcome.ending == "skipped"
    assert "4 events since the data of base-0" in outcome.said
    assert store.ids() == [BASE_RELEASE]
    assert metrics(settings)["palate_training_outcome/skipped"] == 1


def test_an_empty_log_is_a_clear_error_and_no_release(make_settings, models, store) -> None:
    train_settings = SMALL | {"sessions": {"min_new_events": 0}}
    settings = make_settings(train=train_settings, profile={"model": str(models[0])})
    with pytest.raises(TrainingError, match="no interactions"):
        train(settings, store)

    assert store.ids() == [BASE_RELEASE]
    assert metrics(settings)["palate_training_outcome/failed"] == 1


def test_the_log_of_one_user_makes_nothing_that_may_serve(settings, store) -> None:
    fill(settings, users=1, days=12)
    outcome = train(settings, store)

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
        train(settings, store)
    assert store.ids() == [BASE_RELEASE]
    monkeypatch.undo()

    assert made(store, train(settings, store)).kind == "trained"
