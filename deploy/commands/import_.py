"""`palate import`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.console import JsonOption, print_json, run, terminal
from models.errors import ImportFailed
from models.schemas import to_rfc3339
from models.settings import load_settings
from streams.importers.dates import DateOrder
from streams.importers.layouts import FORMATS
from streams.importers.report import ImportReport, OutcomeGroup, printable
from streams.importers.rows import Kind

if TYPE_CHECKING:
    from streams.importers.survey import Survey
    from streams.importers.transmission import Watcher

ROWS_PER_LOOK = 500  # of a dry run, between two movements of the bar


def import_(
    kind: Annotated[Kind, typer.Argument(help="What the files hold.")],
    files: Annotated[
        list[Path],
        typer.Argument(help="CSV, JSONL (each also .gz), .dat or Parquet.", exists=True),
    ],
    format_: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")
    ] = "generic",
    speed: Annotated[
        float | None,
        typer.Option(help="Event seconds per second: 3600 replays an hour each second.", min=1e-6),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on where the last import ended.")
    ] = True,
    dry_run: Annotated[bool, typer.Option(help="Only check the files; send nothing.")] = False,
    limit: Annotated[int | None, typer.Option(help="At most so many rows a file.", min=1)] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Of text files; if not given, as their byte order mark says, or UTF-8."),
    ] = None,
    dates: Annotated[
        DateOrder | None,
        typer.Option(help="What 01/12/2010 is; if not given, each file's own dates decide."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send files of items or interactions to Kafka, in file order, and report on every row.

    An interrupted import goes on where it stopped. Event ids are made from the rows, so sending a
    row twice changes nothing. Sort interactions by time if you can.

    Example: palate import interactions data/sample/interactions.parquet --format online-retail
    """
    from streams.importers.survey import survey
    from streams.importers.transmission import ImportOptions, import_files

    reports: dict[Path, ImportReport] = {}
    console = terminal()
    try:
        with _progress(console, reports, quiet=as_json) as watch:
            settings = load_settings()
            options = ImportOptions(kind, format_, speed, resume, limit, encoding, dates)
            if dry_run:
                reading = options.reading(settings)
                for path in files:
                    _check(survey(path, kind, format_, encoding, limit, reading), watch)
            else:
                run(import_files(settings, files, options, watch))
    finally:
        _show(list(reports.values()), console, as_json, dry_run)
    if not any(report.accepted.count for report in reports.values()):
        raise ImportFailed(f"no row of these files could be read as {kind} in format {format_}")


def _check(opened: Survey, watch: Watcher) -> None:
    watch(opened)
    for _ in opened.messages:
        if opened.report.rows % ROWS_PER_LOOK == 0:
            watch(opened)
    watch(opened)


@contextmanager
def _progress(
    console: Console, reports: dict[Path, ImportReport], quiet: bool
) -> Iterator[Watcher]:
    """Yields a watcher that keeps `reports` and moves one bar per file."""
    if quiet:
        yield lambda opened: reports.update({opened.report.path: opened.report})
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars: dict[Path, Any] = {}

        def watch(opened: Survey) -> None:
            report = opened.report
            if report.path not in bars:
                bars[report.path] = progress.add_task(
                    escape(printable(report.path.name)), total=1, state=""
                )
                reports[report.path] = report
            progress.update(bars[report.path], completed=opened.fraction(), state=_state(report))

        yield watch


def _state(report: ImportReport) -> str:
    reached = f", at {to_rfc3339(report.last_time)[:16]}" if report.last_time else ""
    rejected = f", [yellow]{report.rejected_rows:,} rejected[/]" if report.rejected else ""
    return f"{report.accepted.count:,} accepted{rejected}{reached}"


def _show(reports: list[ImportReport], console: Console, as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_json([report.to_dict() for report in reports])
        return
    for report in reports:
        console.print(f"\n[bold]{escape(printable(str(report.path)))}[/]", soft_wrap=True)
        console.print(_table(report))
        console.print(
            f"{report.rows:,} rows read: {report.accepted.count:,} accepted, "
            f"{report.rejected_rows:,} left out."
        )
        for line in _remarks(report, dry_run):
            console.print(line, soft_wrap=True)


def _table(report: ImportReport) -> Table:
    table = Table(box=None)
    for heading in ("outcome", "rows", "first lines"):
        table.add_column(heading, justify="right" if heading == "rows" else "left")
    table.add_row("accepted", f"{report.accepted.count:,}", _first(report.accepted))
    for column, group in sorted(report.left_out.items()):
        table.add_row(f"  without {escape(column)}", f"{group.count:,}", _first(group))
    for reason, group in sorted(report.rejected.items()):
        table.add_row(f"[yellow]{escape(reason)}[/]", f"{group.count:,}", _first(group))
    return table


def _first(group: OutcomeGroup) -> str:
    return escape("\n".join(f"{line}: {detail}" for line, detail in group.first))


def _remarks(report: ImportReport, dry_run: bool) -> Iterator[str]:
    if report.resumed_after:
        yield f"Rows up to {report.resumed_after:,} had been sent before (--restart repeats them)."
    if report.first_time and report.last_time:
        yield f"Event times {to_rfc3339(report.first_time)} to {to_rfc3339(report.last_time)}."
    yield "Nothing was sent (dry run)." if dry_run else f"{report.sent:,} messages sent."
    for what, group in report.doubts.items():
        line, detail = group.first[0]
        yield f"[yellow]{group.count:,} × {what}[/] (first: line {line}: {escape(detail)})."
    if report.out_of_order.count:
        first = report.out_of_order.first[0]
        yield (
            f"[yellow]{report.out_of_order.count:,} events are more than a day older than those "
            f"before them[/] (first: line {first[0]}). They are put in their place, but users who "
            "stay away do not grow older meanwhile: sort the file by time for a faithful replay."
        )
