"""What `palate train` does next, and why: a pure function of the runs' records and what stands.

Two rules hold it together. A verdict counts beside the release that the candidate was compared
with, as long as that one serves without a break: whoever puts it in force again after another has
served has decided, and nothing made of older data is promoted over that decision. And the same data
is not learned from twice with the same settings, whatever became of the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from models.ports import InForce
from trainer.data.log_source import Pins, logged_since
from trainer.pipeline.record import Event, RunRecord, State, after

Action = Literal[
    "settle",  # write down what has happened meanwhile
    "report",  # the run was killed before it could tell its verdict
    "resume",
    "promote",
    "offer",  # --no-promote: a person is to promote it
    "judge again",
    "skip",
    "begin",
]

GATE_CHANGED: Final = "the gate held it back, and has other settings now"
HELD_BACK: Final = "the gate held it back (palate releases show says why)"
PASSED: Final = "passed the gate"
SERVED: Final = "was put in force"
ROLLED_BACK: Final = "served until another took its place"
NOT_PROMOTED: Final = "was not promoted (--no-promote)"


@dataclass(frozen=True, slots=True)
class Stands:
    """What stands when `palate train` looks."""

    serving: InForce  # topic `releases`
    made: frozenset[str]  # releases in the store
    held_back: frozenset[str]  # those that the gate did not pass
    logged: Pins  # how far the event log goes
    learned: Mapping[int, int]  # next offsets of interactions that the serving release learned from
    forgotten: Mapping[str, int]  # run → users of its data who asked to be forgotten since
    learning: str  # settings and models, by run_key.learning_key
    judging: str  # and by run_key.judging_key
    min_new_events: int  # train.sessions
    promotes: bool = True  # False: --no-promote

    @property
    def new_events(self) -> int:
        """Since the serving release's data."""
        return logged_since(self.learned, self.logged)


@dataclass(frozen=True, slots=True)
class NextStep:
    """What comes next, of which run, and why. `event`: what a `settle` writes down."""

    action: Action
    why: str
    run: RunRecord | None = None
    event: Event | None = None

    @property
    def unserved(self) -> bool:
        """Skipped, as what was made of this data may not serve."""
        return self.run is not None and self.run.state in ("refused", "rejected")


@dataclass(frozen=True, slots=True)
class Decision:
    """The records as they are once all is settled, how each of them got there, and what to do."""

    records: tuple[RunRecord, ...]
    settled: tuple[NextStep, ...]  # `run` as it is after the step
    step: NextStep

    def as_json(self) -> dict[str, Any]:
        """Plain values: the step, and the row of its run."""
        return {
            "step": self.step.action,
            "why": self.step.why,
            "run": _row(self.step.run) if self.step.run else None,
            "settled": [{**_row(one.run), "why": one.why} for one in self.settled if one.run],
        }


def _row(run: RunRecord) -> dict[str, Any]:
    return {
        "run": run.run,
        "release": run.release,
        "parent": run.parent.release,
        "state": run.state,
        "reason": run.reason,
    }


def decide(records: Sequence[RunRecord], stands: Stands) -> Decision:
    """Settle every record, oldest first; then choose what to do. `records` as RunRecords.all."""
    settled: list[NextStep] = []
    now = tuple(_settle(record, stands, settled) for record in records)
    return Decision(now, tuple(settled), _chosen(now, settled, stands))


def _settle(record: RunRecord, stands: Stands, settled: list[NextStep]) -> RunRecord:
    """States only move on, so this ends."""
    while (step := next_step(record, stands)) and step.action == "settle" and step.event:
        record = after(record, step.event, step.why)
        settled.append(NextStep("settle", step.why, record, step.event))
    return record


def _chosen(records: Sequence[RunRecord], settled: Iterable[NextStep], stands: Stands) -> NextStep:
    told = {one.run.run for one in settled if one.run and one.event == "gate refused"}
    for record in records:
        if record.run in told and record.state == "refused":
            return NextStep("report", record.reason, record)
    read = [_with_descendants(record, records) for record in reversed(records)]
    steps = [step for record in read if (step := next_step(record, stands))]
    for step in steps:
        if step.action in ("promote", "offer") or _may_resume(step, read, stands):
            return step
    if stands.new_events < stands.min_new_events:
        return NextStep(
            "skip",
            f"{stands.new_events} events since the data of {stands.serving.release}; fewer than "
            f"train.sessions.min_new_events ({stands.min_new_events})",
        )
    fresh = NextStep(
        "begin", f"{stands.new_events} events came since {stands.serving.release}'s data"
    )
    return next((step for step in steps if step.action != "resume"), fresh)


def _may_resume(step: NextStep, records: Iterable[RunRecord], stands: Stands) -> bool:
    """With other settings than it began with, a run must not learn what another has learned."""
    run = step.run
    if step.action != "resume" or run is None:
        return False
    since = logged_since(run.until["interactions"], stands.logged)
    then = replace(stands, min_new_events=stands.min_new_events + since)  # as when it began
    repeats = (next_step(one, then) for one in records if one.run != run.run)
    return run.learning == stands.learning or all(
        one is None or one.action != "skip" for one in repeats
    )


def _with_descendants(record: RunRecord, records: Iterable[RunRecord]) -> RunRecord:
    """A rollback from what it made is one from all that was made from there: their data is old."""
    if record.state != "promoted":
        return record
    names, until = set(record.releases), dict(record.until["interactions"])
    for one in records:  # a parent is older than its children
        if one.parent.release in names:
            names.update(one.releases)
            for partition, offset in one.until["interactions"].items():
                until[partition] = max(until.get(partition, 0), offset)
    return replace(record, until={**record.until, "interactions": until})


def next_step(record: RunRecord, stands: Stands) -> NextStep | None:
    """What comes next of one run; None if it has ended and stands in nobody's way."""
    if record.state == "promoted":
        return _repeated(record, stands, ROLLED_BACK)
    if stands.serving.release in record.releases:
        return NextStep("settle", SERVED, record, "serve")
    return _OF_STATE[record.state](record, stands)


def _planned(record: RunRecord, stands: Stands) -> NextStep | None:
    if record.release in stands.made:
        if record.release in stands.held_back:
            return NextStep("settle", HELD_BACK, record, "gate refused")
        return NextStep("settle", PASSED, record, "gate passed")
    why = _left_behind(record, stands) or _unusable(record, stands)
    if record.refused and (
        why or _served_anew(record, stands) or record.learning != stands.learning
    ):
        return NextStep("settle", HELD_BACK, record, "withdraw")
    if why:
        return NextStep("settle", why, record, "drop")
    return NextStep("resume", "it was cut short", record)


def _passed(record: RunRecord, stands: Stands) -> NextStep | None:
    if record.release not in stands.made:
        return NextStep("settle", "its release is gone from the store", record, "drop")
    if why := _left_behind(record, stands) or _served_anew(record, stands):
        return NextStep("settle", why, record, "supersede")
    if why := _unusable(record, stands):
        return NextStep("settle", why, record, "drop")
    if stands.promotes:
        return NextStep("promote", "it passed the gate and does not serve yet", record)
    return NextStep("offer", NOT_PROMOTED, record)


def _refused(record: RunRecord, stands: Stands) -> NextStep | None:
    """Judged again only by settings that have not judged it yet, beside the same release."""
    same = _repeated(record, stands, record.reason)
    if same is None or stands.judging in record.refused.values():
        return same
    if why := _served_anew(record, stands):
        return _repeated(record, stands, f"{record.reason}; {why}")
    if _unusable(record, stands):  # somebody asked to be forgotten: the log is read as it is now
        return None
    return NextStep("judge again", GATE_CHANGED, record)


def _waits(record: RunRecord, stands: Stands) -> NextStep | None:
    return _repeated(record, stands, record.reason)


def _superseded(record: RunRecord, stands: Stands) -> NextStep | None:
    return _repeated(record, stands, _served_anew(record, stands) or record.reason)


def _dropped(record: RunRecord, stands: Stands) -> NextStep | None:
    """A new run takes its place, but not over the head of who put its parent in force again."""
    why = _served_anew(record, stands)
    return _repeated(record, stands, why) if why else None


_OF_STATE: Final[Mapping[State, Callable[[RunRecord, Stands], NextStep | None]]] = {
    "planned": _planned,
    "passed": _passed,
    "refused": _refused,
    "offered": _waits,
    "rejected": _waits,
    "superseded": _superseded,
    "dropped": _dropped,
}


def keeps_texts(record: RunRecord, stands: Stands) -> bool:
    """Whether what models wrote about users is still needed: to resume, or to judge again."""
    if record.state == "refused":
        usable = not (_unusable(record, stands) or _served_anew(record, stands))
        return usable and _repeated(record, stands, "") is not None
    return record.state == "planned"


def _repeated(record: RunRecord, stands: Stands, became: str) -> NextStep | None:
    """Skip, if a run would only learn the same again; `became`: what became of the first time."""
    last = record.until["interactions"]
    new = logged_since(last, stands.logged)
    if (
        record.parent.release != stands.serving.release
        or record.learning != stands.learning
        or not _covered(record, stands)
        or new >= stands.min_new_events
        or not (
            record.state == "promoted"
            or stands.made.intersection(record.releases)
            or _served_anew(record, stands)  # perhaps it was one of these that served in between
        )
    ):
        return None
    why = (
        f"{_named(record, stands)} was made of this data, and {became}; {new} events came since, "
        f"fewer than train.sessions.min_new_events ({stands.min_new_events}). "
        f"{_ways_on(record, stands)}"
    )
    return NextStep("skip", why, record)


def _named(record: RunRecord, stands: Stands) -> str:
    """Of the releases that hold what the run learned, the one judged as now, or the last."""
    judged = [name for name, key in record.refused.items() if key == stands.judging]
    return judged[-1] if judged and record.state == "refused" else record.release


def _ways_on(record: RunRecord, stands: Stands) -> str:
    name = _named(record, stands)
    others = "more events or other settings to learn with make another one"
    if name not in stands.made:
        return others
    force = " --force" if name in record.refused else ""
    again = "with other settings of train.gate it is judged again; "
    judged_again = record.state == "refused" and not _served_anew(record, stands)
    return (
        f"palate releases promote {name}{force} lets it serve; "
        f"{again if judged_again else ''}{others}"
    )


def _left_behind(record: RunRecord, stands: Stands) -> str | None:
    if record.parent.release == stands.serving.release:
        return None
    return f"it started from {record.parent.release}, and {stands.serving.release} serves now"


def _served_anew(record: RunRecord, stands: Stands) -> str | None:
    """Another release served in between, and somebody put the parent in force again."""
    if record.parent == stands.serving or record.parent.release != stands.serving.release:
        return None
    return f"{record.parent.release} was put in force again since it was compared with it"


def _unusable(record: RunRecord, stands: Stands) -> str | None:
    """Why the data that the run has read cannot be used any more."""
    if not _covered(record, stands):
        return "the event log holds less than it had read: it was made anew"
    if count := stands.forgotten.get(record.run, 0):
        return f"{count} users asked to be forgotten since it began"
    return None


def _covered(record: RunRecord, stands: Stands) -> bool:
    """A log that was made anew holds less than the run has read."""
    return covers(stands.logged, record.until)


def covers(logged: Pins, until: Pins) -> bool:
    """Whether the log goes as far as these offsets."""
    return all(
        logged[topic].get(partition, 0) >= offset
        for topic, offsets in until.items()
        for partition, offset in offsets.items()
    )
