"""A world in memory for the runner: store, topic, event log and operator, with kills anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from models.errors import CheckpointMismatch, ReleaseError, ReleaseNotReady
from models.ports import InForce
from trainer.pipeline.next_step import Stands
from trainer.pipeline.outcome import RunOutcome
from trainer.pipeline.record import RunRecord, RunRecords
from trainer.pipeline.runner import Runner

LEAST = 10  # min_new_events
BASE = "base-0"


class Killed(BaseException):
    """Stands for a kill."""


@dataclass(frozen=True)
class Trained:
    """A release in the store that a run made."""

    parent: str
    passed: bool
    read: int  # events
    learning: str
    judging: str
    log: int  # which event log: it can be made anew
    beside: InForce  # what it was compared with


class MemoryRecords:
    """As RunRecords; what a run keeps beside its record is not there."""

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}

    def all(self) -> list[RunRecord]:
        return [self._records[run] for run in sorted(self._records)]

    def save(self, record: RunRecord) -> RunRecord:
        self._records[record.run] = record
        return record

    def clear(self, made: frozenset[str], _needs_texts: Callable[[RunRecord], bool]) -> None:
        for one in self.all():
            if one.state == "dropped" and made.isdisjoint(one.releases):
                del self._records[one.run]


class KillableRecords(RunRecords):
    """May be killed just before and just after each write."""

    def __init__(self, folder: Path, tick: Callable[[], None]) -> None:
        super().__init__(folder)
        self._tick = tick

    def save(self, record: RunRecord) -> RunRecord:
        self._tick()
        super().save(record)
        self._tick()
        return record

    def clear(self, made: frozenset[str], needs_texts: Callable[[RunRecord], bool]) -> None:
        self._tick()
        super().clear(made, needs_texts)
        self._tick()


@dataclass
class World:
    """What stands, and the effects of a run on it."""

    kept: Path | None = None  # where records are; None: in memory
    events: int = 0
    now_ms: int = 1_300_000_000_000
    log: int = 0
    wishes: list[int] = field(default_factory=list)  # events that were there when it was made
    learning: str = "learning-1"
    judging: str = "gate-1"
    promotes: bool = True
    gate_passes: bool = True
    promotion: str = "works"  # not ready, refused
    mismatch: bool = False  # checkpoints are of another run
    served: list[InForce] = field(default_factory=list)
    store: dict[str, Trained | None] = field(default_factory=dict)  # None: not of a run
    all_made: dict[str, Trained] = field(default_factory=dict)  # also what was removed since
    promoted: list[str] = field(default_factory=list)  # by runs
    begun: set[str] = field(default_factory=set)  # runs that have checkpoints
    kill_at: int | str | None = None

    def __post_init__(self) -> None:
        self.announced_at = count(1)
        self.journal = KillableRecords(self.kept, self.tick) if self.kept else MemoryRecords()
        self.store[BASE] = None
        self.put_in_force(BASE)

    # The operator.

    def put_in_force(self, release: str) -> None:
        self.served.append(InForce(release, next(self.announced_at)))

    @property
    def serving(self) -> InForce:
        return self.served[-1]

    def roll_back(self) -> None:
        """To the release before, as `palate releases rollback` does."""
        before = [one.release for one in self.served if one.release != self.serving.release]
        if before:
            self.put_in_force(before[-1])

    # What a run sees and does.

    def tick(self, point: str = "") -> None:
        """A point at which a run can be killed: by its number, or by its name."""
        if self.kill_at == point:
            raise Killed
        if isinstance(self.kill_at, int):
            self.kill_at -= 1
            if self.kill_at < 0:
                raise Killed

    def stands(self, records: Sequence[RunRecord]) -> Stands:
        made = self.store.get(self.serving.release)
        same_log = made is not None and made.log == self.log
        return Stands(
            serving=self.serving,
            made=frozenset(self.store),
            held_back=frozenset(name for name, one in self.store.items() if one and not one.passed),
            logged=self.until,
            learned={0: made.read} if made and same_log else {},
            forgotten={
                one.run: sum(at >= one.until["profile-edits"][0] for at in range(len(self.wishes)))
                for one in records
            },
            learning=self.learning,
            judging=self.judging,
            min_new_events=LEAST,
            promotes=self.promotes,
        )

    @property
    def until(self) -> dict[str, dict[int, int]]:
        edits = {0: len(self.wishes)}
        return {"interactions": {0: self.events}, "items": {0: 0}, "profile-edits": edits}

    def require_a_stage(self) -> None:
        self.tick()

    def make(self, run: RunRecord) -> RunOutcome:
        self.tick()
        if self.mismatch and run.run in self.begun:
            raise CheckpointMismatch("the checkpoint is of another run")
        self.begun.add(run.run)
        self.tick("begun")
        made = Trained(
            run.parent.release,
            self.gate_passes,
            run.until["interactions"][0],
            run.learning,
            run.judged_by,
            self.log,
            run.parent,
        )
        assert run.release not in self.all_made  # releases never change
        self.store[run.release] = self.all_made[run.release] = made
        self.tick("made")
        return self.made(run)

    def made(self, run: RunRecord) -> RunOutcome:
        made = self.store[run.release]
        assert made is not None
        return RunOutcome("passed" if made.passed else "refused", "", release=run.release)

    def promote(self, run: RunRecord) -> None:
        self.tick()
        if self.promotion == "not ready":
            raise ReleaseNotReady("no profiler runs")
        if self.promotion == "refused" or run.parent != self.serving:
            raise ReleaseError("refused by profiler/1")
        self.promoted.append(run.release)
        self.put_in_force(run.release)
        self.tick("promoted")

    def records(self) -> list[RunRecord]:
        return self.journal.all()

    def train(self, kill_at: int | str | None = None) -> RunOutcome | None:
        """`palate train`; None if it was killed, or could not promote."""
        self.kill_at = kill_at
        runner = Runner(
            self.journal,
            self,
            note=lambda _: None,
            now_ms=lambda: self.now_ms,
        )
        try:
            return runner.outcome()
        except (Killed, ReleaseError):
            return None
        finally:
            self.kill_at = None
