"""What a run has set out to do, kept until it ends: a killed run goes on with the same data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from models.errors import TrainingError
from trainer import kept

_FILE: Final = "plan.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """The next release's name, whence it comes, and up to which offsets the log is read."""

    release: str
    parent: str
    started_ms: int
    until: Mapping[int, int]  # partition of interactions → offset after the last one read


def plan_for(folder: Path, parent: str, until: Mapping[int, int], now_ms: int) -> Plan:
    """The plan of the run that was cut short, if it went on from the same release; else a new one.

    Raises TrainingError if the kept plan cannot be read.
    """
    known = _known(folder / _FILE)
    if known is not None and known.parent == parent and _covers(until, known.until):
        return known
    plan = Plan(release_id(now_ms), parent, now_ms, dict(until))
    kept.write(folder / _FILE, asdict(plan))
    return plan


def done(folder: Path) -> None:
    """The run has ended: the next one makes a plan of its own."""
    (folder / _FILE).unlink(missing_ok=True)


def release_id(now_ms: int) -> str:
    """Name of a release that is made now; names sort by time."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("r-%Y%m%d-%H%M%S")


def _known(path: Path) -> Plan | None:
    found = kept.read(path)
    if found is None:
        return None
    try:
        until = {int(partition): int(offset) for partition, offset in found.pop("until").items()}
        return Plan(**found, until=until)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise TrainingError(f"{path} is no plan: {error!r}; remove it to begin anew") from error


def _covers(log: Mapping[int, int], planned: Mapping[int, int]) -> bool:
    """A log that was recreated since holds less than the plan wants."""
    return all(log.get(partition, 0) >= offset for partition, offset in planned.items())
