"""What a run has set out to do, kept until it has ended: a killed run goes on with the same data.

A run has ended when what it made serves, or is not to serve. So a release that passed and is not
yet in service, because the promotion failed or was killed, is found by the next run through the
plan. For each release gone on from, the plan that ended last is remembered with what became of what
it made: the same data would only make the same release again, which the gate has refused or an
operator has rolled back. By parent, because a rollback goes back past runs that ended since.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from models.engines.model_files import ModelSource, files_hash
from models.identity import digest
from models.settings import Settings
from trainer.data.log_source import READ, Pins, logged_since
from trainer.pipeline import json_state as kept

_FILE: Final = "plan.json"
_ENDED: Final = "ended.json"
_RUNS: Final = "runs"
_REMEMBERED: Final = 16  # ended runs, each of another parent: as far back as rollbacks are expected

T = TypeVar("T")

log = logging.getLogger(__name__)


# Names of what a run learns with and of what it is judged by.
#
# With the same ones, the same data gives the same release and the same verdict.

_GROUPS: Final = {"rounds", "passes", "sessions", "policy", "warm_start", "rlso", "contrastive"}
# Within them, what moves no weight: when to train, and where rollouts are written.
_NOT_LEARNED_WITH: Final = {"sessions": {"min_new_events"}, "rlso": {"vllm_url"}}
# What the gate ranks by: not how often the tracker looks, and in what portions.
_NOT_RANKED_BY: Final = {"interval_s", "tick_s", "batch", "refresh_s", "exact_up_to"}
_COUNTED_BY: Final = {
    "cooccurrence_neighbours",
    "pair_half_life_days",
    "pair_support",
    "popularity_half_life_days",
}


def learning_key(settings: Settings, model_hash: str, embedder: ModelSource) -> str:
    """Of the models and of the settings that learning reads.

    How a run is judged, told and scheduled is not in it: that may change while a run is cut
    short. `model_hash` as in models.release.compatibility.
    """
    train = settings.train
    return digest(
        train.model_dump(mode="json", include=_GROUPS, exclude=_NOT_LEARNED_WITH),
        [train.gate.metric, train.evaluation.seed],  # by these CL chooses the step that it keeps
        settings.windows.model_dump(mode="json"),
        [settings.ranking.exclude_seen, settings.embedder.description_chars],
        [settings.profile.model, model_hash, files_hash(embedder)],
        [settings.profile.max_new_tokens, settings.profile.max_tokens],
    )


def judging_key(settings: Settings) -> str:
    """Of the settings by which the gate measures and judges, beside those in `learning_key`."""
    return digest(
        settings.train.gate.model_dump(mode="json"),
        settings.train.evaluation.ks,
        settings.ranking.model_dump(mode="json", exclude=_NOT_RANKED_BY),
        settings.index.model_dump(mode="json", include=_COUNTED_BY),
    )


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The next release's name, whence it comes, and up to which offsets the log is read."""

    release: str
    parent: str
    started_ms: int
    until: Pins
    learning: str = ""  # what it learns with, see trainer.pipeline.plan


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a run's release."""

    said: str  # for people, as in "r-1 was made of this data, and …"
    may_serve: bool = True  # False: the gate held it back, or a role refused it
    judged_by: str = ""  # if the gate held it back: by which settings, see trainer.pipeline.plan


@dataclass(frozen=True, slots=True)
class Ended:
    """A plan that ended, and what became of its release."""

    plan: RunPlan
    fate: Fate

    def may_pass(self, judged_by: str) -> bool:
        """Whether the gate held the release back and judges by other settings now."""
        return self.fate.judged_by not in ("", judged_by)


def under_way(folder: Path) -> RunPlan | None:
    """The plan of a run that has not ended; None if there is none that this Palate can read.

    Raises TrainingError if the file is damaged.
    """
    return _read(folder / _FILE, _plan)


def ended_from(folder: Path, parent: str) -> Ended | None:
    """The last run from `parent` that made a release and ended; None if there is none.

    Raises as `under_way`.
    """
    return _ended(folder).get(parent)


def begin(
    folder: Path,
    parent: str,
    until: Pins,
    now_ms: int,
    taken: Collection[str] = (),
    learning: str = "",
) -> RunPlan:
    """A new plan, kept in `folder`; its release's name is none of `taken`."""
    named_ms = now_ms
    while release_id(named_ms) in taken:
        named_ms += 1_000
    return _kept(folder, RunPlan(release_id(named_ms), parent, now_ms, until, learning))


def with_learning(folder: Path, plan: RunPlan, learning: str) -> RunPlan:
    """The plan, gone on with by other settings or models."""
    if plan.learning == learning:
        return plan
    return _kept(folder, replace(plan, learning=learning))


def again(folder: Path, ended: RunPlan, now_ms: int, taken: Collection[str]) -> RunPlan:
    """A plan for the same release under a new name: only its verdict is to be another.

    What the ended run has kept is the new one's, which so has nothing to learn.
    """
    made = begin(folder, ended.parent, ended.until, now_ms, taken, ended.learning)
    runs, old = folder / _RUNS, ended.release
    for path in [*runs.glob(f"{old}-*/gate/{old}.*"), *runs.glob(f"{old}-*")]:
        path.rename(path.with_name(path.name.replace(old, made.release, 1)))
    return made


def end(folder: Path, fate: Fate | None) -> None:
    """The run has ended: the next one makes a plan of its own. `fate`: None if it made nothing."""
    plan = under_way(folder)
    if plan and fate:
        _remember(folder, Ended(plan, fate))
    (folder / _FILE).unlink(missing_ok=True)


def _remember(folder: Path, ended: Ended) -> None:
    """In the place of the one before from the same parent; the oldest are forgotten."""
    others = [one for one in _ended(folder).values() if one.plan.parent != ended.plan.parent]
    newest = [*others, ended][-_REMEMBERED:]
    kept.write(folder / _ENDED, [asdict(one) for one in newest])


def drop(folder: Path, plan: RunPlan) -> None:
    """The run will not be gone on with; what it has made so far is removed."""
    (folder / _FILE).unlink(missing_ok=True)
    for run in (folder / _RUNS).glob(f"{plan.release}-*"):
        shutil.rmtree(run)


def run_folder(folder: Path, plan: RunPlan, key: str) -> Path:
    """Where a run keeps what it makes; `key` names its settings and models."""
    return folder / _RUNS / f"{plan.release}-{key}"


def set_aside(folder: Path, plan: RunPlan, key: str) -> str | None:
    """What was begun on the plan's data with other settings or models; None if nothing was."""
    mine = run_folder(folder, plan, key)
    others = sorted(path.name for path in mine.parent.glob(f"{plan.release}-*") if path != mine)
    if not others:
        return None
    return (
        f"{', '.join(others)} in {mine.parent} was begun with other settings or models and is "
        f"not gone on with, {mine.name} is; put them back to go on there"
    )


def why_dropped(
    plan: RunPlan, serving: str, logged: Pins, forgotten: Collection[str]
) -> str | None:
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


def why_not_again(ended: Ended, learning: str, logged: Pins, least: int) -> str | None:
    """Why a run from the same parent would only repeat the one that ended; None if it would not.

    `learning`: what it would learn with; `least`: events since then that are worth a run.
    """
    last = ended.plan
    if last.learning != learning or not _covers(logged, last.until):
        return None
    new = logged_since(last.until["interactions"], logged)
    if new >= least:
        return None
    return (
        f"{last.release} was made of this data, and {ended.fate.said}; {new} events came since, "
        f"fewer than train.sessions.min_new_events ({least}). {_ways_on(ended)}"
    )


def _ways_on(ended: Ended) -> str:
    promote = f"palate releases promote {ended.plan.release}"
    if ended.fate.judged_by:
        return (
            f"{promote} --force lets it serve; with other settings of train.gate it is judged "
            "again; more events or other settings to learn with make another one"
        )
    return f"{promote} lets it serve; more events or other settings to learn with make another one"


def release_id(now_ms: int) -> str:
    """Name of a release that is made now; names sort by time."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("r-%Y%m%d-%H%M%S")


def _kept(folder: Path, plan: RunPlan) -> RunPlan:
    kept.write(folder / _FILE, asdict(plan))
    return plan


def _read(path: Path, made_of: Callable[[Any], T]) -> T | None:
    found = kept.read(path)
    try:
        return made_of(found) if found is not None else None
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        log.warning("%s is not as this Palate writes it (%r) and is left out", path, error)
        return None


def _ended(folder: Path) -> dict[str, Ended]:
    """By parent, in order of their ends."""

    def made_of(found: Any) -> dict[str, Ended]:
        ended = [Ended(_plan(one["plan"]), Fate(**one["fate"])) for one in found]
        return {one.plan.parent: one for one in ended}

    return _read(folder / _ENDED, made_of) or {}


def _plan(found: dict[str, Any]) -> RunPlan:
    until = {topic: _offsets(found["until"][topic]) for topic in READ}
    return RunPlan(**{**found, "until": until})


def _offsets(found: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): int(offset) for partition, offset in found.items()}


def _covers(logged: Pins, planned: Pins) -> bool:
    """A log that was recreated since holds less than the plan wants."""
    return all(
        logged[topic].get(partition, 0) >= offset
        for topic, offsets in planned.items()
        for partition, offset in offsets.items()
    )
