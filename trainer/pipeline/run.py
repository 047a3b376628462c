"""One training run: from the event log to a release in service, or to the reason why not.

Every stage keeps its own checkpoint in the run's folder, and the run's record pins what is read of
the log. So a run that was killed, at whatever point, is resumed with the same losses when the
command is given again; one that was killed after its release was written has only to be promoted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from models.engines.model_files import base_model_hash
from models.errors import PalateError, TrainingError
from models.ports import InForce, Release, ReleaseStore
from models.release.compatibility import held_back
from models.settings import Settings
from streams.event_log import SegmentLog
from trainer.data.corpus import Corpus
from trainer.data.log_source import forgotten_since, logged_since, logged_until
from trainer.data.replay_sampling import chosen
from trainer.learning.policy_answers import served_otherwise
from trainer.learning.stages import require_a_stage
from trainer.pipeline import job_metrics
from trainer.pipeline.candidate import TrainingRun, TrainingTools, outcome_of
from trainer.pipeline.next_step import Decision, Stands, covers, decide
from trainer.pipeline.outcome import RunMemory, RunOutcome, load_memory, save_memory
from trainer.pipeline.parent import anchor_of, rolled_back, start_from
from trainer.pipeline.record import RunRecord, RunRecords
from trainer.pipeline.release_writer import last_verdict
from trainer.pipeline.run_key import judging_key, learning_key
from trainer.pipeline.runner import Runner
from trainer.pipeline.schedule import alone

log = logging.getLogger(__name__)


def run(settings: Settings, tools: TrainingTools, serving: InForce) -> RunOutcome:
    """Train once beside the `serving` release, and let what passes the gate take its place.

    Raises TrainingError if another training runs or the disk is full, ReleaseError if what passed
    could not be put into service, and what else goes wrong; it is remembered as a failed run and
    told to Prometheus. What can be resumed is, by the next run. One that is stopped by SIGTERM
    or Ctrl-C is not remembered, for nothing has ended.
    """
    folder, started = settings.training_dir, time.monotonic()
    with _said_where(folder), alone(folder):
        memory, notes = load_memory(folder), _Notes()
        try:
            release = tools.releases.get(serving.release)
            memory = _beside(release, memory, tools.releases)
            effects = _Effects(settings, tools, serving, release, memory, notes)
            outcome = Runner(RunRecords(folder), effects, notes).outcome()
        except Exception as error:  # one that is told to stop has not failed: it is resumed later
            failed = RunOutcome("failed", _said(error), seconds=time.monotonic() - started)
            _remember(settings, memory, failed, serving.release, tools.releases)
            raise
        seconds = time.monotonic() - started
        outcome = replace(outcome, notes=tuple(notes), seconds=seconds)
        _remember(settings, memory, outcome, serving.release, tools.releases)
        return outcome


def explain(settings: Settings, tools: TrainingTools, serving: InForce) -> tuple[Decision, Stands]:
    """What `run` would do now and why; nothing is changed, and a training that runs is let be."""
    release, records = tools.releases.get(serving.release), RunRecords(settings.training_dir).all()
    stands = _Effects(settings, tools, serving, release, RunMemory(), _Notes()).stands(records)
    return decide(records, stands), stands


class _Notes(list[str]):
    """What else people are to know; told in the log at once."""

    def __call__(self, reason: str) -> None:
        log.warning("%s", reason)
        self.append(reason)


@contextmanager
def _said_where(folder: Path) -> Iterator[None]:
    """Errors of the disk as one of the tree, wherever they came from."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"training in {folder} was stopped by the system: {error}. Make room, or see to what "
            "it names, and train again: the run is resumed from its checkpoints"
        ) from error


def _beside(serving: Release, memory: RunMemory, store: ReleaseStore) -> RunMemory:
    """What is remembered, without an anchor that was rolled back."""
    if not memory.anchor or not rolled_back(store, memory.anchor, serving):
        return memory
    log.warning("%s was rolled back: the anchor is %s from now on", memory.anchor, serving.id)
    return replace(memory, anchor=serving.id)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, PalateError) else repr(error)


def _remember(
    settings: Settings, memory: RunMemory, outcome: RunOutcome, serving: str, store: ReleaseStore
) -> None:
    """What the run came to stands, whether it can be written down or not."""
    folder, promoted, judged = settings.training_dir, None, outcome.verdict
    try:
        promoted = last_verdict(store, [serving])
        made = [name for run in RunRecords(folder).all() for name in run.releases]
        judged = judged or last_verdict(store, made)
    except PalateError as error:
        log.warning("what the gate said last is not known: %s", error)
    after = memory.after(outcome, time.time_ns() // 1_000_000, serving, promoted)
    try:
        save_memory(folder, after)
    except TrainingError as error:
        log.warning("the run is not remembered: %s", error)
    job_metrics.publish(settings, outcome, after, judged)


class _Effects:
    """Effects on the store, the event log and the running system, for one `palate train`."""

    def __init__(
        self,
        settings: Settings,
        tools: TrainingTools,
        serving: InForce,
        release: Release,
        memory: RunMemory,
        note: Callable[[str], None],
    ) -> None:
        self._settings, self._tools, self._serving = settings, tools, serving
        self._note, self._events = note, SegmentLog.of(settings)
        hash_ = base_model_hash(settings)
        self._start = start_from(tools.releases, release, settings, hash_)
        self._anchor = anchor_of(tools.releases, memory.anchor, self._start, settings, hash_)
        self._learning = learning_key(settings, hash_, tools.embedder)
        sampled = served_otherwise(settings.profile)
        for reason in dict.fromkeys((self._start.reason, self._anchor.reason, sampled)):
            if reason:
                note(reason)

    def stands(self, records: Sequence[RunRecord]) -> Stands:
        """See Effects. What a planned run has made is read from the store: it may be damaged."""
        store, logged = self._tools.releases, logged_until(self._events)
        made = frozenset(store.ids())
        planned = {one.release for one in records if one.state == "planned"}
        return Stands(
            serving=self._serving,
            made=made,
            held_back=frozenset(name for name in planned & made if held_back(store.get(name))),
            logged=logged,
            learned=self._start.seen.next_offsets,
            forgotten={
                one.run: len(forgotten_since(self._events, one.until))
                for one in records
                if one.state in ("planned", "passed", "refused") and covers(logged, one.until)
            },
            learning=self._learning,
            judging=judging_key(self._settings),
            min_new_events=self._settings.train.sessions.min_new_events,
            promotes=self._tools.promote is not None,
        )

    def require_a_stage(self) -> None:
        """See Effects."""
        require_a_stage(self._settings.train, self._start.models)

    def make(self, run: RunRecord) -> RunOutcome:
        """See Effects."""
        self.require_a_stage()
        settings, seen = self._settings, self._start.seen
        corpus = Corpus.from_log(self._events, settings, until=run.until)
        new = logged_since(seen.next_offsets, logged_until(self._events))
        sessions = chosen(corpus.sessions.train, seen, settings.train.sessions)
        if not sessions:
            said = f"no session is newer than {self._serving.release}"
            return RunOutcome("skipped", said, new_events=new)
        training = TrainingRun(settings, self._tools, self._start, self._anchor, run, corpus)
        if training.set_aside:
            self._note(training.set_aside)
        return replace(training.outcome(sessions), new_events=new)

    def made(self, run: RunRecord) -> RunOutcome:
        """See Effects."""
        return outcome_of(self._tools.releases.get(run.release))

    def promote(self, run: RunRecord) -> None:
        """See Effects."""
        if self._tools.promote is not None:
            self._tools.promote(self._tools.releases.get(run.release), run.parent)
