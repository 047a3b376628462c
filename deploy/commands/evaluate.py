"""`palate evaluate`."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from deploy.console import JsonOption, print_json, terminal

if TYPE_CHECKING:
    from models.settings import Settings
    from trainer.data.corpus import Corpus
    from trainer.data.sessions import Session
    from trainer.evaluation.context import Context
    from trainer.evaluation.evaluate import EvaluationReport
    from trainer.evaluation.systems import System

_NOT_READ: Final = ("kafka", "trigger", "metrics", "log_level", "log_format", "workers")


class ProtocolOption(StrEnum):
    """How test is told from training."""

    TEMPORAL = "temporal"
    LEAVE_ONE_OUT = "leave-one-out"


class Part(StrEnum):
    """Which sessions are ranked."""

    VALIDATION = "validation"
    TEST = "test"


def evaluate(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with items.parquet and interactions.parquet; else the log."),
    ] = None,
    protocol: Annotated[
        ProtocolOption, typer.Option(help="One border in time for all, or each user's last item.")
    ] = ProtocolOption.TEMPORAL,
    system: Annotated[
        list[str] | None, typer.Option(help="Measure this system; may be repeated.")
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also what has to be trained or written first: raw histories, SASRec, profiles, "
            "hybrids and controls. Hours on two cores.",
        ),
    ] = False,
    split: Annotated[Part, typer.Option(help="Sessions to rank.")] = Part.TEST,
    users: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only so many users, drawn with the seed; default all, or, for systems that write "
            "profiles, train.evaluation.users.",
        ),
    ] = None,
    mask_seen: Annotated[
        bool | None,
        typer.Option(
            "--mask-seen/--keep-seen", help="Leave out items had before; default by protocol."
        ),
    ] = None,
    ages: Annotated[
        bool, typer.Option("--ages", help="Also rank by what was known earlier; draw by age.")
    ] = False,
    curves: Annotated[
        list[Path] | None,
        typer.Option(help="Draw the learning curves of this JSONL log too; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default data_dir/evaluations/TIME.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rank the whole catalogue by every system and say who is better, with intervals.

    Prints the table and writes table.md, results.json, sessions.npz and plots to the run folder,
    texts.md about what the systems wrote or read, and with --ages also ages.md.

    Example: palate evaluate --data data/sample
    """
    from models.engines.threads import wait_without_spinning
    from models.settings import load_settings
    from trainer.evaluation import plots, registry, report
    from trainer.evaluation.ageing import by_age

    wait_without_spinning()
    given, started = load_settings(), time.monotonic()
    settings = _with_masking(given, mask_seen)
    corpus = _read(data, settings, protocol, split)
    named = [*(registry.every() if every else ()), *(system or ())]
    sessions = _sessions(corpus, split, users, named, settings)
    systems = registry.build_systems(named, _context(corpus, settings, sessions))
    found = _measure(corpus, systems, sessions, settings, quiet=as_json)
    folder = out or settings.data_dir / "evaluations" / time.strftime("%Y%m%d-%H%M%S")
    about = _about(given, time.monotonic() - started)
    written = report.write(found, folder, about)
    written += _texts(systems, sessions, settings, folder)
    written += plots.draw_slices(found, folder)
    written += [plots.draw_training(log, folder) for log in curves or ()]
    if ages:
        metric = f"ndcg@{report.headline_k(found)}"
        aged = by_age(corpus, systems, sessions, settings.train.evaluation, metric)
        written.append(plots.metric_by_age(aged, folder / "by-age.png"))
        written.append(report.write_ages(aged, folder))
    if as_json:
        print_json(report.to_json(found, about))
    else:
        _show(found, written)


def _with_masking(settings: Settings, mask_seen: bool | None) -> Settings:
    if mask_seen is None:
        return settings
    evaluation = settings.train.evaluation.model_copy(update={"mask_seen": mask_seen})
    train = settings.train.model_copy(update={"evaluation": evaluation})
    return settings.model_copy(update={"train": train})


def _read(data: Path | None, settings: Settings, protocol: ProtocolOption, split: Part) -> Corpus:
    """The data; for the validation, without what the validation itself holds."""
    from streams.event_log import SegmentLog
    from trainer.data.corpus import Corpus

    if data is not None:
        corpus = Corpus.from_folder(data, settings, protocol.value)
    else:
        corpus = Corpus.from_log(SegmentLog.of(settings), settings, protocol.value)
    return corpus.at_validation() if split is Part.VALIDATION else corpus


def _sessions(
    corpus: Corpus, split: Part, users: int | None, named: Sequence[str], settings: Settings
) -> Sequence[Session]:
    """Those of the split, or of so many users: writing profiles takes long."""
    from trainer.data.corpus import sample_users
    from trainer.evaluation.registry import writes_profiles

    chosen, sessions = settings.train.evaluation, corpus.sessions.of(split.value)
    most = users or (chosen.users if any(map(writes_profiles, named)) else None)
    return sample_users(sessions, most, chosen.seed) if most else sessions


def _context(corpus: Corpus, settings: Settings, sessions: Sequence[Session]) -> Context:
    from models.engines.model_files import embedder_model, files_hash
    from trainer.evaluation.context import Context

    def embedder() -> Any:
        from models.engines.embedder import SentenceEmbedder  # torch takes seconds to import

        return SentenceEmbedder(embedder_model(settings), settings.embedder)

    return Context(
        corpus,
        settings,
        embedder,
        files_hash(embedder_model(settings)),
        settings.data_dir / "vectors",
        sessions,
    )


def _measure(
    corpus: Corpus, systems: Any, sessions: Any, settings: Settings, *, quiet: bool
) -> EvaluationReport:
    from rich.progress import Progress

    from trainer.evaluation.evaluate import evaluate

    with Progress(console=terminal(quiet), transient=True, disable=quiet) as progress:
        task = progress.add_task("ranking", total=len(systems) * len(sessions))
        return evaluate(
            corpus,
            systems,
            sessions,
            settings.train.evaluation,
            advance=lambda count: progress.advance(task, count),
        )


def _texts(
    systems: Sequence[System], sessions: Sequence[Session], settings: Settings, folder: Path
) -> list[Path]:
    from models.engines.model_files import language_model
    from models.engines.tokens import token_counter
    from trainer.evaluation import texts

    told = [system for system in systems if not system.name.endswith("shuffled")]  # others' texts
    ranked_by = [system for system in told if isinstance(system, texts.ReadsTexts)]
    if not ranked_by:
        return []
    count_tokens = token_counter(language_model(settings))
    return [texts.write(ranked_by, sessions, count_tokens, folder / "texts.md")]


def _about(settings: Settings, took_s: float) -> dict[str, Any]:
    from deploy.bench import machine

    return {
        "command": " ".join([*_set(settings), shlex.join(["palate", *sys.argv[1:]])]),
        "seed": settings.train.evaluation.seed,
        "embedder": settings.embedder.model,
        "took_s": round(took_s),
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine.in_words(),
    }


def _set(settings: Settings) -> list[str]:
    """What has to stand before the command to get the same figures."""
    told = settings.environment(without=_NOT_READ)
    return [f"{name}={shlex.quote(value)}" for name, value in told.items()]


def _show(found: EvaluationReport, written: list[Path]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    from trainer.evaluation import report

    console = terminal()
    console.print(report.setting_of(found))
    head, *rows = report.short_table(found)
    table = Table(*head, box=SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print("written: " + ", ".join(str(path) for path in written))
