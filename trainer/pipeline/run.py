"""One training run: from the event log to a release in service, or to the reason why not.

Every stage keeps its own checkpoint in the run's folder, and the plan pins what is read of the
log. So a run that was killed, at whatever point, goes on with the same losses when the command is
given again; one that was killed after its release was written has only to let it serve.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from models.engines.model_files import base_model_hash
from models.errors import (
    CheckpointMismatch,
    PalateError,
    ReleaseError,
    ReleaseNotReady,
    TrainingError,
)
from models.ports import Release, ReleaseStore
from models.settings import Settings
from streams.event_log import SegmentLog
from trainer.data.corpus import Corpus
from trainer.data.log_source import forgotten_since, logged_since, logged_until
from trainer.data.replay_sampling import chosen
from trainer.learning.stages import require_a_stage
from trainer.learning.writing import served_otherwise
from trainer.pipeline import job_metrics, plan
from trainer.pipeline.outcome import RunMemory, RunOutcome, load_memory, save_memory
from trainer.pipeline.parent import anchor_of, rolled_back, start_from
from trainer.pipeline.plan import judging_key, learning_key
from trainer.pipeline.release_writer import judged_by, verdict_of
from trainer.pipeline.schedule import alone
from trainer.pipeline.training import TrainingRun, TrainingTools, outcome_of

# If the run's parent serves: a rollback.
SERVED: Final = plan.Fate("served until another took its place")
OTHER_GATE: Final = "the gate held it back, and has other settings now"

log = logging.getLogger(__name__)


def run(settings: Settings, tools: TrainingTools, serving: str) -> RunOutcome:
    """Train once beside the `serving` release, and let what passes the gate take its place.

    Raises TrainingError if another training runs or the disk is full, ReleaseError if what passed
    could not be put into service, and what else goes wrong; it is remembered as a failed run and
    told to Prometheus. What can be gone on with is, by the next run. One that is stopped by SIGTERM
    or Ctrl-C is not remembered, for nothing has ended.
    """
    folder, started = settings.training_dir, time.monotonic()
    with _said_where(folder), alone(folder):
        memory, verdict = load_memory(folder), None
        try:
            release = tools.releases.get(serving)
            memory = _beside(release, memory, tools.releases)
            outcome = _Attempt(settings, tools, release, memory).outcome()
            verdict = outcome.verdict
            _end(settings, tools, outcome)
        except Exception as error:  # one that is told to stop has not failed: it goes on later
            seconds = time.monotonic() - started
            failed = RunOutcome("failed", _said(error), verdict=verdict, seconds=seconds)
            _remember(settings, memory, failed, serving)
            raise
        outcome = replace(outcome, seconds=time.monotonic() - started)
        _remember(settings, memory, outcome, serving)
        return outcome


@contextmanager
def _said_where(folder: Path) -> Iterator[None]:
    """Errors of the disk as one of the tree, wherever they came from."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"training in {folder} was stopped by the system: {error}. Make room, or see to what "
            "it names, and train again: the run goes on from its checkpoints"
        ) from error


def _beside(serving: Release, memory: RunMemory, store: ReleaseStore) -> RunMemory:
    """What is remembered, without an anchor that was rolled back."""
    if not memory.anchor or not rolled_back(store, memory.anchor, serving):
        return memory
    log.warning("%s was rolled back: the anchor is %s from now on", memory.anchor, serving.id)
    return memory.anchored_to(serving.id)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, PalateError) else repr(error)


def _remember(settings: Settings, memory: RunMemory, outcome: RunOutcome, serving: str) -> None:
    """What the run came to stands, whether it can be written down or not."""
    after = memory.after(outcome, time.time_ns() // 1_000_000, serving)
    try:
        save_memory(settings.training_dir, after)
    except TrainingError as error:
        log.warning("the run is not remembered: %s", error)
    job_metrics.publish(settings, outcome, after)


def _end(settings: Settings, tools: TrainingTools, outcome: RunOutcome) -> None:
    """Promote what passed. The plan stays until there is nothing left to do."""
    try:
        fate = _fate(outcome, tools)
    except ReleaseNotReady:
        raise  # the next run tries again
    except ReleaseError as error:
        fate = plan.Fate(f"could not be let serve ({error})", may_serve=False)
        plan.end(settings.training_dir, fate)
        raise
    plan.end(settings.training_dir, fate)


def _fate(outcome: RunOutcome, tools: TrainingTools) -> plan.Fate | None:
    """Let what passed serve; what became of the release, as in plan.end."""
    if outcome.release is None:
        return None
    release = tools.releases.get(outcome.release)
    if outcome.ending == "refused":
        said = "the gate held it back (palate releases show says why)"
        return plan.Fate(said, may_serve=False, judged_by=judged_by(release))
    if tools.promote is None:
        return plan.Fate("was not promoted (--no-promote)")
    tools.promote(release)
    return SERVED


class _Attempt:
    """From the log to a release and its verdict, by the plan that is there or by a new one."""

    def __init__(
        self, settings: Settings, tools: TrainingTools, serving: Release, memory: RunMemory
    ) -> None:
        self._settings, self._tools, self._memory = settings, tools, memory
        self._folder, self._events = settings.training_dir, SegmentLog.of(settings)
        self._logged = logged_until(self._events)
        self._notes: list[str] = []
        hash_ = base_model_hash(settings)
        self._start = start_from(tools.releases, serving, settings, hash_)
        self._anchor = anchor_of(tools.releases, memory.anchor, self._start, settings, hash_)
        self._learning = learning_key(settings, hash_, tools.embedder)
        sampled = served_otherwise(settings.profile)
        for reason in dict.fromkeys((self._start.reason, self._anchor.reason, sampled)):
            self._note(reason)

    def outcome(self) -> RunOutcome:
        """Where a plan cannot be gone on with, all begins anew, and the outcome says why."""
        planned = self._under_way()
        made = self._made(planned) if planned else None
        if made:
            return replace(outcome_of(made), notes=tuple(self._notes))
        try:
            found = self._trained(planned)
        except CheckpointMismatch as error:
            planned = planned or plan.under_way(self._folder)  # one that was to be judged again
            if planned is None:
                raise
            self._drop(planned, str(error))
            found = self._trained(None)
        return replace(found, notes=tuple(self._notes))

    def _note(self, reason: str | None) -> None:
        if reason:
            log.warning("%s", reason)
            self._notes.append(reason)

    def _under_way(self) -> plan.RunPlan | None:
        planned = plan.under_way(self._folder)
        if planned is None:
            return None
        forgotten = forgotten_since(self._events, planned.until)
        serving = self._start.release.id
        reason = plan.why_dropped(planned, serving, self._logged, forgotten)
        if reason is None:
            return planned
        if planned.release == serving:  # killed after the last step, before it was noted
            plan.end(self._folder, SERVED)
        else:
            self._drop(planned, reason)
        return None

    def _drop(self, planned: plan.RunPlan, reason: str) -> None:
        said = f"the run of {planned.release} is not gone on with: {reason}"
        made = self._made(planned)
        if made and verdict_of(made).passed:
            said += f". palate releases promote {made.id} lets what it made serve all the same"
        self._note(said)
        plan.drop(self._folder, planned)

    def _made(self, planned: plan.RunPlan) -> Release | None:
        """The plan's release, if the run was killed, or its promotion failed, after it was written.

        It is not made again: releases never change.
        """
        store = self._tools.releases
        return store.get(planned.release) if planned.release in store.ids() else None

    def _trained(self, planned: plan.RunPlan | None) -> RunOutcome:
        settings, serving = self._settings, self._start.release
        new = logged_since(self._start.seen.next_offsets, self._logged)
        least = settings.train.sessions.min_new_events
        if new < least:
            return RunOutcome(
                "skipped",
                f"{new} events since the data of {serving.id}; fewer than "
                f"train.sessions.min_new_events ({least})",
                new_events=new,
            )
        if planned is None and (skipped := self._made_before(least)):
            return replace(skipped, new_events=new)
        require_a_stage(settings.train, self._start.models)
        planned = self._planned(planned, least)
        corpus = Corpus.from_log(self._events, settings, until=planned.until)
        sessions = chosen(corpus.sessions.train, self._start.seen, settings.train.sessions)
        if not sessions:
            return RunOutcome("skipped", f"no session is newer than {serving.id}", new_events=new)
        under_way = TrainingRun(settings, self._tools, self._start, self._anchor, planned, corpus)
        self._note(under_way.set_aside)
        return replace(under_way.outcome(sessions), new_events=new)

    def _made_before(self, least: int) -> RunOutcome | None:
        """Skipped, if a run would only make again what one before made, and judge it as then."""
        ended = self._ended()
        if ended is None or ended.may_pass(judging_key(self._settings)):
            return None
        reason = plan.why_not_again(ended, self._learning, self._logged, least)
        return RunOutcome("skipped", reason, unserved=not ended.fate.may_serve) if reason else None

    def _ended(self) -> plan.Ended | None:
        """The last run from what serves now, if what it made is still there."""
        ended = plan.ended_from(self._folder, self._start.release.id)
        there = ended and ended.plan.release in self._tools.releases.ids()
        return ended if there else None

    def _planned(self, planned: plan.RunPlan | None, least: int) -> plan.RunPlan:
        if planned:
            return plan.with_learning(self._folder, planned, self._learning)
        now, taken = time.time_ns() // 1_000_000, self._tools.releases.ids()
        refused = self._to_be_judged_again(least)
        if refused:
            found = plan.again(self._folder, refused, now, taken)
            self._note(f"{refused.release} is judged again, as {found.release}: {OTHER_GATE}")
            return found
        serving = self._start.release.id
        return plan.begin(self._folder, serving, self._logged, now, taken, self._learning)

    def _to_be_judged_again(self, least: int) -> plan.RunPlan | None:
        """What the gate held back, where only its settings have changed since."""
        ended = self._ended()
        if ended is None or not plan.why_not_again(ended, self._learning, self._logged, least):
            return None
        forgotten = forgotten_since(self._events, ended.plan.until)
        serving = self._start.release.id
        dropped = plan.why_dropped(ended.plan, serving, self._logged, forgotten)
        return None if dropped else ended.plan
