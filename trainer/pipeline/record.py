"""The record of one training run, `runs/<id>/run.json`, and the states that it moves through.

A run learns once. Its release is judged, and judged again under another name where the gate has
other settings. What a run kept beside its record (checkpoints, logs, answers) serves to resume it;
the gate's verdict stands in the release's manifest; all else that later runs must know is here.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from models.ports import InForce
from trainer.data.log_source import READ, Pins
from trainer.pipeline import json_state

_FILE: Final = "run.json"
_RUNS: Final = "runs"
KEPT_RUNS: Final = 3  # whose logs and checkpoints stay, to look at
UNFINISHED: Final = "is not finished"
_TEXTS: Final = "**/answers-*.jsonl"  # what models wrote about users

State = Literal[
    "planned",  # under way, or cut short: its release is not judged yet
    "passed",  # the gate passed its release, which is to be promoted
    "refused",  # the gate held its release back
    "promoted",  # a release of it serves or has served
    "offered",  # passed, and left to a person (--no-promote)
    "rejected",  # passed, and a role refused it
    "superseded",  # passed, and what it was compared with was replaced before it could serve
    "dropped",  # not resumed: its data or its checkpoints can no longer be used
]
Event = Literal[
    "gate passed",
    "gate refused",
    "serve",  # a release of the run is in force
    "leave",  # --no-promote
    "reject",
    "supersede",
    "drop",
    "judge again",
    "withdraw",  # judging again is given up
]

# Whatever the state, an operator can promote what the run made.
TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    "planned": {
        "gate passed": "passed",
        "gate refused": "refused",
        "withdraw": "refused",
        "drop": "dropped",
        "serve": "promoted",
    },
    "passed": {
        "serve": "promoted",
        "leave": "offered",
        "reject": "rejected",
        "supersede": "superseded",
        "drop": "dropped",
    },
    "refused": {"judge again": "planned", "serve": "promoted"},
    "offered": {"serve": "promoted"},
    "rejected": {"serve": "promoted"},
    "superseded": {"serve": "promoted"},
    "dropped": {"serve": "promoted"},
    "promoted": {},
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run: what it set out to do, how far it is, and why."""

    run: str  # its id, and the name of the first release that it makes
    parent: InForce  # what it started from, as it was in force when it was last resumed
    until: Pins  # up to which offsets it reads the log
    learning: str  # what it learns with (run_key.learning_key)
    planned_ms: int  # when its release was planned
    release: str  # the release that it makes: another one when it is judged again
    judged_by: str = ""  # what the release is judged by (run_key.judging_key)
    refused: Mapping[str, str] = field(default_factory=dict)  # release held back → judged by what
    state: State = "planned"
    reason: str = UNFINISHED  # of the state, for people, as in "r-1 …"

    @property
    def releases(self) -> tuple[str, ...]:
        """All that it made or is making."""
        return tuple(dict.fromkeys((*self.refused, self.release)))


def after(record: RunRecord, event: Event, reason: str) -> RunRecord:
    """The record after an event that its state allows (KeyError otherwise)."""
    moved = replace(record, state=TRANSITIONS[record.state][event], reason=reason)
    if event == "gate refused":
        return replace(moved, refused={**record.refused, record.release: record.judged_by})
    if event == "withdraw":
        return replace(moved, release=list(record.refused)[-1])
    return moved


def new_name(now_ms: int, taken: Collection[str]) -> str:
    """Of a release that is planned now; none of `taken`. Names sort by time."""
    while (name := datetime.fromtimestamp(now_ms / 1000, UTC).strftime("r-%Y%m%d-%H%M%S")) in taken:
        now_ms += 1_000
    return name


class RunRecords:
    """The records of all runs in a folder, and what the runs keep beside them.

    A folder without a record is no run. Records are small and are kept for ever, so that nothing
    that was rolled back is made again; only a dropped run that made nothing leaves nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _RUNS

    def all(self) -> list[RunRecord]:
        """Oldest first, without those of another layout. Raises TrainingError if one is damaged."""
        paths = sorted(self._folder.glob(f"*/{_FILE}"))
        return [record for path in paths if (record := _read(path)) is not None]

    def save(self, record: RunRecord) -> RunRecord:
        """Replace the run's record, durably. Raises TrainingError if the disk does not take it."""
        json_state.write(self._folder / record.run / _FILE, asdict(record))
        return record

    def work(self, record: RunRecord, key: str) -> Path:
        """Where a run keeps what it makes; `key` names its settings and models."""
        return self._folder / record.run / key

    def set_aside(self, record: RunRecord, key: str) -> str | None:
        """What the run began with other settings or models, in words; None if nothing."""
        mine = self.work(record, key)
        others = sorted(path.name for path in self._work_of(record.run) if path != mine)
        if not others:
            return None
        return (
            f"{', '.join(others)} in {mine.parent} was begun with other settings or models and is "
            f"not resumed, {mine.name} is; put them back to resume it"
        )

    def clear(self, made: frozenset[str], needs_texts: Callable[[RunRecord], bool]) -> None:
        """Remove what nobody needs: the work of dropped and of old runs, and texts about users."""
        records = self.all()
        newest = {record.run for record in records[-KEPT_RUNS:]}
        for record in records:
            dropped = record.state == "dropped"
            if dropped or not (record.run in newest or record.state == "planned"):
                for path in self._work_of(record.run):
                    shutil.rmtree(path)
            if dropped and made.isdisjoint(record.releases):
                (self._folder / record.run / _FILE).unlink()  # last: a folder without it is no run
                shutil.rmtree(self._folder / record.run)
            elif not needs_texts(record):
                for path in (self._folder / record.run).glob(_TEXTS):
                    path.unlink()

    def _work_of(self, run: str) -> Iterator[Path]:
        return (path for path in list((self._folder / run).glob("*")) if path.is_dir())


def _read(path: Path) -> RunRecord | None:
    found = json_state.read(path)
    try:
        return _record(found)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        log.warning("%s is not as this Palate writes it (%r) and is left out", path, error)
        return None


def _record(found: Any) -> RunRecord:
    until = {topic: _offsets(found["until"][topic]) for topic in READ}
    if found["state"] not in TRANSITIONS:
        raise ValueError(found["state"])
    return RunRecord(**{**found, "parent": InForce(**found["parent"]), "until": until})


def _offsets(found: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): int(offset) for partition, offset in found.items()}
