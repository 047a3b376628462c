"""What a run has set out to do, kept until it has ended: a killed run goes on with the same data.

A run has ended when what it made serves, or is not to serve. So a release that passed and is not
yet in service, because the promotion failed or was killed, is found by the next run through the
plan.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from trainer import kept
from trainer.log_source import READ, Pins

_FILE: Final = "plan.json"
_RUNS: Final = "runs"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """The next release's name, whence it comes, and up to which offsets the log is read."""

    release: str
    parent: str
    started_ms: int
    until: Pins


def under_way(folder: Path) -> Plan | None:
    """The plan of a run that has not ended; None if there is none that this Palate can read.

    Raises TrainingError if the file is damaged.
    """
    found = kept.read(folder / _FILE)
    try:
        return _plan(found) if found is not None else None
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        log.warning("%s is no plan (%r): training begins anew", folder / _FILE, error)
        return None


def begin(folder: Path, parent: str, until: Pins, now_ms: int, taken: Collection[str] = ()) -> Plan:
    """A new plan, kept in `folder`; its release's name is none of `taken`."""
    named_ms = now_ms
    while release_id(named_ms) in taken:
        named_ms += 1_000
    plan = Plan(release_id(named_ms), parent, now_ms, until)
    kept.write(folder / _FILE, asdict(plan))
    return plan


def done(folder: Path) -> None:
    """The run has ended: the next one makes a plan of its own."""
    (folder / _FILE).unlink(missing_ok=True)


def drop(folder: Path, plan: Plan) -> None:
    """The run will not be gone on with; what it has made so far is removed."""
    done(folder)
    for run in (folder / _RUNS).glob(f"{plan.release}-*"):
        shutil.rmtree(run)


def run_folder(folder: Path, plan: Plan, key: str) -> Path:
    """Where a run keeps what it makes; `key` names its settings and models."""
    return folder / _RUNS / f"{plan.release}-{key}"


def why_dropped(plan: Plan, serving: str, logged: Pins, forgotten: Collection[str]) -> str | None:
    """Why the plan cannot be gone on with; None if it can.

    `forgotten`: users who asked to be forgotten since it was made. Pinned data would have them.
    """
    if plan.parent != serving:
        return f"it went on from {plan.parent}, and {serving} serves now"
    if not _covers(logged, plan.until):
        return "the event log holds less than it had read: it was made anew"
    if forgotten:
        return f"{len(forgotten)} users asked to be forgotten since it began"
    return None


def release_id(now_ms: int) -> str:
    """Name of a release that is made now; names sort by time."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("r-%Y%m%d-%H%M%S")


def _plan(found: dict[str, Any]) -> Plan:
    until = {topic: _offsets(found["until"][topic]) for topic in READ}
    return Plan(**{**found, "until": until})


def _offsets(found: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): int(offset) for partition, offset in found.items()}


def _covers(logged: Pins, planned: Pins) -> bool:
    """A log that was recreated since holds less than the plan wants."""
    return all(
        logged[topic].get(partition, 0) >= offset
        for topic, offsets in planned.items()
        for partition, offset in offsets.items()
    )
