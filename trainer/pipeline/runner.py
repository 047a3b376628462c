"""Does what next_step says, and writes down what came of it: the loop around the pure decision.

The order of every effect: its record says what is to be done, it is done, the record says that it
was. So a kill at any point leaves a record that says less than what has happened, never more, and
what stands (the store, topic `releases`) tells the next run the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from models.errors import CheckpointMismatch, ReleaseError, ReleaseNotReady
from trainer.pipeline.next_step import (
    HELD_BACK,
    NOT_PROMOTED,
    PASSED,
    SERVED,
    Decision,
    NextStep,
    Stands,
    decide,
    keeps_texts,
)
from trainer.pipeline.outcome import RunOutcome
from trainer.pipeline.record import UNFINISHED, Event, RunRecord, RunRecords, after, new_name

log = logging.getLogger(__name__)


class Effects(Protocol):
    """What a run does to the world, and sees of it."""

    def stands(self, records: Sequence[RunRecord]) -> Stands:
        """What stands now."""
        ...

    def require_a_stage(self) -> None:
        """Raises TrainingError if nothing would be learned."""
        ...

    def make(self, run: RunRecord) -> RunOutcome:
        """Learn, judge, write the release; or skip, where there is nothing to learn from.

        Raises CheckpointMismatch if what the run has kept is not of this run.
        """
        ...

    def made(self, run: RunRecord) -> RunOutcome:
        """What the gate said of a release that was made before."""
        ...

    def promote(self, run: RunRecord) -> None:
        """Put the run's release in force in its parent's place. Raises ReleaseError."""
        ...


class Runner:
    """One `palate train`, on the records of a folder whose lock is held."""

    def __init__(
        self,
        records: RunRecords,
        effects: Effects,
        note: Callable[[str], None] = log.warning,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`note` tells people what else is to be known: what is not resumed, and why."""
        self._records, self._effects = records, effects
        self._note, self._now_ms = note, now_ms

    def outcome(self) -> RunOutcome:
        """Settle, decide, act. Where checkpoints do not fit, all begins anew, with the reason.

        What effects raise is passed on; the record then stands as it was, for the next run.
        """
        records = self._records.all()
        stands = self._effects.stands(records)
        decision = decide(records, stands)
        self._settle(decision, stands)
        self._clear(stands)
        step = decision.step
        log.info("next: %s, as %s", step.action, step.why)
        if step.action == "skip":
            return RunOutcome(
                "skipped", step.why, new_events=stands.new_events, unserved=step.unserved
            )
        run = self._opened(step, decision, stands)
        try:
            outcome = self._carried_out(run, stands)
        except CheckpointMismatch as error:
            if step.action == "begin":
                raise
            self._note(_not_resumed(self._move(run, "drop", str(error)), stands))
            return self.outcome()
        self._clear(replace(stands, made=stands.made | {outcome.release or ""}))
        return outcome

    def _settle(self, decision: Decision, stands: Stands) -> None:
        for run in (step.run for step in decision.settled if step.run):
            self._records.save(run)
            if run.state in ("dropped", "superseded"):
                self._note(_not_resumed(run, stands))

    def _clear(self, stands: Stands) -> None:
        self._records.clear(stands.made, lambda record: keeps_texts(record, stands))

    def _opened(self, step: NextStep, decision: Decision, stands: Stands) -> RunRecord:
        """The run to go on with. While it is planned, its record says what it is judged by, and
        beside what, before it is judged: once its release is written, nobody could tell."""
        run, now = step.run, self._now_ms()
        taken = stands.made.union(*(one.releases for one in decision.records))
        if run is None:
            self._effects.require_a_stage()
            name = new_name(now, taken)
            run = RunRecord(name, stands.serving, stands.logged, stands.learning, now, name)
        elif step.action == "judge again":
            name = new_name(now, taken)
            self._note(f"{run.release} is judged again, as {name}: {step.why}")
            run = replace(after(run, "judge again", UNFINISHED), release=name, planned_ms=now)
        if run.state != "planned":
            return run
        run = replace(run, parent=stands.serving, learning=stands.learning)
        return self._records.save(replace(run, judged_by=stands.judging))

    def _carried_out(self, run: RunRecord, stands: Stands) -> RunOutcome:
        """Make what is to be made, then promote what passed."""
        if run.state != "planned":
            outcome = self._effects.made(run)
        else:
            outcome = self._effects.make(run)
            if outcome.release is None:
                self._move(run, "drop", outcome.said)
                return outcome
            if outcome.ending == "passed":
                run = self._move(run, "gate passed", PASSED)
            else:
                run = self._move(run, "gate refused", HELD_BACK)
        if run.state == "passed":
            self._put_in_force(run, stands.promotes)
        return outcome

    def _put_in_force(self, run: RunRecord, promotes: bool) -> None:
        if not promotes:
            self._move(run, "leave", NOT_PROMOTED)
            return
        try:
            self._effects.promote(run)
        except ReleaseNotReady:
            raise  # the next run tries again
        except ReleaseError as error:
            self._move(run, "reject", f"could not be let serve ({error})")
            raise
        self._move(run, "serve", SERVED)

    def _move(self, run: RunRecord, event: Event, reason: str) -> RunRecord:
        return self._records.save(after(run, event, reason))


def _not_resumed(run: RunRecord, stands: Stands) -> str:
    said = f"the run of {run.release} is not resumed: {run.reason}"
    if run.release in stands.made and run.release not in run.refused:
        said += f". palate releases promote {run.release} lets what it made serve all the same"
    return said
