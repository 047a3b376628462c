"""What tests of whole runs call, and how they stop them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from models.ports import Release
from models.release.store import BASE_RELEASE
from models.schemas import ProfileEdit
from models.settings import Settings
from streams.codec import partition_for
from streams.event_log import SegmentLog
from tests.streams.logged import record, record_of
from tests.trainer.small_run import DAY_MS, START_MS, run_once
from trainer.learning import checkpoints
from trainer.pipeline.outcome import RunOutcome
from trainer.pipeline.record import RunRecords


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


def train(
    settings: Settings,
    calls: Calls | None = None,
    *,
    promote: Callable[[Release], None] | None = None,
    serving: str = BASE_RELEASE,
) -> RunOutcome:
    return run_once(settings, (calls or Calls()).advance, promote, serving)


def planned(settings: Settings) -> str | None:
    """The release of the run that is not at its end, if there is one."""
    runs = RunRecords(settings.training_dir).all()
    names = [run.release for run in runs if run.state in ("planned", "passed")]
    assert len(names) < 2
    return names[0] if names else None


def metrics(settings: Settings) -> dict[str, float]:
    text = (settings.training_dir / "metrics.prom").read_text()
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def made(store, outcome: RunOutcome) -> Release:
    assert outcome.release
    return store.verify(outcome.release)


def forget(settings: Settings, user_id: str) -> None:
    """The wish, logged after all that the user did."""
    log = SegmentLog(settings.log_dir)
    partition = partition_for(user_id.encode(), settings.kafka.partitions)
    wish = ProfileEdit(edit_id="1", user_id=user_id, action="forget", timestamp=START_MS)
    at = START_MS + 1_000 * DAY_MS
    record(log, settings, [record_of("profile-edits", partition, 0, wish, at)])


def of_another_run(folder: Path) -> None:
    """The checkpoint there is so from now on."""
    state = checkpoints.load(folder, checkpoints._read(folder / "checkpoint.pt")["identity"])
    assert state is not None
    checkpoints.save(folder, state, "another run")
