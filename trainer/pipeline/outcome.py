"""How a training run ended, and the little that is remembered from one run to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from models.errors import TrainingError
from trainer.gate.decision import Verdict
from trainer.pipeline import json_state

_FILE: Final = "memory.json"

Ending = Literal["passed", "refused", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run: wall time, optimiser steps and the last loss."""

    name: str
    seconds: float
    steps: int = 0
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run came to. `passed`: a release was made and the gate lets it serve."""

    ending: Ending
    said: str  # for people
    release: str | None = None
    new_events: int | None = None  # since the serving release's data; None: not counted
    stages: Sequence[Stage] = ()
    reward_before: float | None = None
    reward_after: float | None = None
    verdict: Verdict | None = None
    notes: Sequence[str] = ()  # what else is to be known: what was begun anew, and why
    seconds: float = 0.0  # wall time of the run
    unserved: bool = False  # skipped, as what was made of this data may not serve

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunMemory:
    """Kept beside the runs' records: when the job ran, and the release that all are anchored to.

    The anchor is the first release that served, then any that surely ranked above it and has been
    seen to serve. So it follows gains and no losses: what is lost is counted from the best. One
    that was rolled back is the bar of nobody: then the release that serves is the anchor.
    """

    last_success_ms: int = 0
    last_run_ms: int = 0
    anchor: str = ""  # the gate's second comparison
    endings: dict[str, int] = field(default_factory=dict)

    def after(
        self, outcome: RunOutcome, at_ms: int, serving: str, promoted: Verdict | None = None
    ) -> RunMemory:
        """With one more run beside `serving`; `promoted`: what the gate had said of that release.

        A refused release is no success of the job, nor is a failure, nor is a run that is skipped
        because of them.
        """
        good = outcome.ending in ("passed", "skipped") and not outcome.unserved
        return replace(
            self,
            anchor=self._anchor_after(outcome, serving, promoted),
            last_run_ms=at_ms,
            last_success_ms=at_ms if good else self.last_success_ms,
            endings={
                **self.endings,
                outcome.ending: self.endings.get(outcome.ending, 0) + 1,
            },
        )

    def _anchor_after(self, outcome: RunOutcome, serving: str, promoted: Verdict | None) -> str:
        """The gate itself takes another anchor where the old one cannot be loaded."""
        if promoted and promoted.passed and promoted.ranks_above(self.anchor):
            return serving
        judged = outcome.verdict.anchor if outcome.verdict else ""
        return judged or self.anchor or serving


def load_memory(folder: Path) -> RunMemory:
    """What was kept in `folder`; empty at the first run. Raises TrainingError if unreadable."""
    found = json_state.read(folder / _FILE)
    try:
        return RunMemory(**found) if found is not None else RunMemory()
    except TypeError as error:
        raise TrainingError(
            f"{folder / _FILE} is no memory of runs: {error}; remove it to begin anew"
        ) from error


def save_memory(folder: Path, memory: RunMemory) -> None:
    """Replace what is kept."""
    json_state.write(folder / _FILE, asdict(memory))
