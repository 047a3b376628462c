"""`palate train`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.console import JsonOption, print_json, run, terminal
from models.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from models.ports import InForce, Release
    from trainer.pipeline.candidate import TrainingTools
    from trainer.pipeline.outcome import RunOutcome

REFUSED = 4  # exit code: a release was made, and the gate held it back


def train(
    every: Annotated[
        str | None, typer.Option(help="Again and again: 30m, 24h or 7d from start to start.")
    ] = None,
    promotes: Annotated[
        bool, typer.Option("--promote/--no-promote", help="Let what passes the gate serve.")
    ] = True,
    explains: Annotated[
        bool, typer.Option("--explain", help="Say what would be done now, and why. Do nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn from the event log and release what passes the gate into the running system.

    A run that was cut short goes on. Exit code 0: released, or skipped because little is new;
    4: the gate held the release back; 1: it failed, or what passed could not be put into service.

    --explain says which of these would come next and why, from the runs' records and from what
    serves.

    Example: palate train --every 24h
    """
    settings = load_settings()
    if explains:
        _explain(settings, promotes, as_json)
        return
    if every is None:
        outcome = _once(settings, promotes, as_json)
        raise typer.Exit(REFUSED if outcome.ending == "refused" else 0)
    from trainer.pipeline.schedule import repeat, seconds_of

    interval = seconds_of(every)
    repeat(lambda: _once(settings, promotes, as_json), interval, _until_terminated())


def _until_terminated() -> threading.Event:
    """Set by SIGTERM; a run under way ends at once and goes on from its checkpoint next time."""
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    return stop


def _once(settings: Settings, promotes: bool, as_json: bool) -> RunOutcome:
    outcome = _trained(settings, promotes, quiet=as_json)
    if as_json:
        print_json(outcome.as_json())
    else:
        _show(outcome, promotes)
    return outcome


def _trained(settings: Settings, promotes: bool, quiet: bool) -> RunOutcome:
    from models.engines.threads import wait_without_spinning

    wait_without_spinning()
    from trainer.pipeline.run import run as train_once

    with _progress(quiet) as progress:

        def promote(release: Release, instead_of: InForce) -> None:
            progress.stop()  # promoting shows a line of its own
            _put_into_service(settings, release, instead_of, quiet)

        tools = _tools(settings, _Bars(progress).advance, promote if promotes else None)
        return train_once(settings, tools, run(_serving(settings)))


def _put_into_service(
    settings: Settings, release: Release, instead_of: InForce, quiet: bool
) -> None:
    """In the place of the release that it was compared with, of no other."""
    from deploy.commands.releases import WITHIN_S, put_into_service

    put_into_service(settings, release.id, WITHIN_S, terminal(quiet), instead_of=instead_of)


async def _serving(settings: Settings) -> InForce:
    from deploy.promotion import in_force, releases_topic
    from models.release.store import FolderReleaseStore

    async with releases_topic(settings) as topic:
        return in_force(topic.releases, FolderReleaseStore(settings.releases_dir))


def _tools(
    settings: Settings,
    advance: Callable[[str, int, int], None],
    promote: Callable[[Release, InForce], None] | None,
) -> TrainingTools:
    from models.engines.embedder import SentenceEmbedder
    from models.engines.model_files import embedder_model, language_model
    from models.release.store import FolderReleaseStore
    from trainer.pipeline.candidate import TrainingTools

    return TrainingTools(
        releases=FolderReleaseStore(settings.releases_dir),
        model=language_model(settings),
        embedder=embedder_model(settings),
        open_embedder=lambda source: SentenceEmbedder(source, settings.embedder),
        advance=advance,
        promote=promote,
    )


def _explain(settings: Settings, promotes: bool, as_json: bool) -> None:
    from trainer.pipeline.run import explain

    tools = _tools(settings, lambda *_: None, (lambda *_: None) if promotes else None)
    decision, stands = explain(settings, tools, run(_serving(settings)))
    told = {
        "serving": stands.serving.release,
        "new_events": stands.new_events,
        **decision.as_json(),
    }
    if as_json:
        print_json(told)
        return
    console = terminal()
    for change in told["settled"]:
        console.print(f"{change['release']} is {change['state']}: {change['why']}", soft_wrap=True)
    if row := told["run"]:
        console.print(
            f"{row['release']}, from {row['parent']}: {row['state']} ({row['reason']})",
            soft_wrap=True,
        )
    console.print(f"next: [bold]{told['step']}[/], as {told['why']}", soft_wrap=True)


def _progress(quiet: bool) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns: list[Any] = ["{task.description}", BarColumn(), MofNCompleteColumn()]
    return Progress(*columns, TimeRemainingColumn(), console=terminal(quiet))


class _Bars:
    """One bar per stage, made when the stage begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, Any] = {}

    def advance(self, stage: str, done: int, of: int) -> None:
        """A stage has done so much."""
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, total=of)
        self._progress.update(self._bars[stage], completed=done)


def _show(outcome: RunOutcome, promotes: bool) -> None:
    console = terminal()
    for stage in outcome.stages:
        loss = "" if stage.loss is None else f", last loss {stage.loss:.4f}"
        console.print(f"{stage.name:16} {stage.seconds:7.0f} s, {stage.steps} steps{loss}")
    for note in outcome.notes:
        console.print(f"[yellow]{note}[/]", soft_wrap=True)
    for check in outcome.verdict.checks if outcome.verdict else ():
        console.print(f"[{'green' if check.passed else 'red'}]{check}[/]", soft_wrap=True)
    verdicts = {
        "passed": f"release {outcome.release} passed the gate"
        + (" and serves" if promotes else "; palate releases promote lets it serve"),
        "refused": f"release {outcome.release} stays as it is: {outcome.said}",
        "skipped": f"nothing trained: {outcome.said}",
    }
    console.print(verdicts.get(outcome.ending, outcome.said), soft_wrap=True)
