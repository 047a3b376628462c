"""`palate check parity`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from deploy.console import JsonOption, not_found, print_json, terminal
from models.settings import load_settings

if TYPE_CHECKING:
    from streams.parity import ParityReport

app = typer.Typer(no_args_is_help=True)


@app.callback()
def check() -> None:
    """Check that what was made is what the events say.

    Example: palate check parity
    """


@app.command()
def parity(as_json: JsonOption = False) -> None:
    """Recompute every logged request's windows and every logged profile's prompt.

    Exit code 1 if one differs. What the recorder is still writing is counted as waiting.

    Example: palate check parity --json
    """
    from streams.event_log import SegmentLog
    from streams.parity import check_parity

    settings = load_settings()
    log = SegmentLog.of(settings)
    if not log.partitions("profile-requests") and not log.partitions("interactions"):
        raise not_found(f"no event log in {settings.log_dir}; is the recorder running?")
    report = check_parity(log, settings)
    if as_json:
        mismatches = [mismatch._asdict() for mismatch in report.mismatches]
        print_json(asdict(report) | {"mismatches": mismatches})
    else:
        _print(report)
    if report.mismatch_count:
        raise typer.Exit(1)


def _print(report: ParityReport) -> None:
    from rich.markup import escape

    console = terminal()
    for found in report.mismatches:
        where = f"{found.topic} partition {found.partition} offset {found.offset}"
        console.print(f"[red]{found.kind}[/] {where}, user {escape(found.user_id)}")
        console.print(f"    {escape(found.detail)}")
    colour = "red" if report.mismatch_count else "green"
    console.print(
        f"{report.requests} requests and {report.profiles} profiles checked: "
        f"[{colour}]{report.mismatch_count} mismatches[/]"
    )
    if report.waiting:
        console.print(f"{report.waiting} rest on records that are not in the log yet")
    if report.other_prompts:
        console.print(f"{report.other_prompts} profiles have a prompt of another version")
