"""`palate check parity` and `palate check log`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from deploy.console import JsonOption, not_found, print_json, terminal
from models.settings import load_settings

if TYPE_CHECKING:
    from streams.event_log import SegmentLog
    from streams.parity import ParityReport

app = typer.Typer(no_args_is_help=True)


@app.callback()
def check() -> None:
    """Check that what was made is what the events say, and that the events are there.

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


@app.command("log")
def log_(as_json: JsonOption = False) -> None:
    """Read the whole event log; set damaged segments apart, so that the rest can be read.

    Nothing is deleted. What is set apart the recorder reads again from Kafka, where that still
    has it. Exit code 1 if something is missing. It may run beside the recorder.

    Example: palate check log
    """
    from streams.event_log import LOGGED_TOPICS, SegmentLog

    settings = load_settings()
    log = SegmentLog(settings.log_dir)
    places = [(topic, number) for topic in LOGGED_TOPICS for number in log.partitions(topic)]
    if not places:
        raise not_found(f"no event log in {settings.log_dir}; is the recorder running?")
    found = [_checked(log, *place) for place in places]
    if as_json:
        print_json(found)
    else:
        _print_log(found)
    if any(partition["missing"] for partition in found):
        raise typer.Exit(1)


def _checked(log: SegmentLog, topic: str, partition: int) -> dict[str, Any]:
    """One partition, repaired as far as it can be."""
    from streams.event_log.repair import apart, check

    folder = log.partition_folder(topic, partition)
    manifest = check(folder)
    return {
        **{"topic": topic, "partition": partition, "segments": len(manifest.segments)},
        "rows": sum(segment.rows for segment in manifest.segments),
        "missing": [asdict(hole) for hole in manifest.missing],
        "apart": [str(path) for path in apart(folder)],
    }


def _print_log(found: list[dict[str, Any]]) -> None:
    console = terminal()
    for partition in found:
        where = f"{partition['topic']} partition {partition['partition']}"
        for hole in partition["missing"]:
            span = f"offsets {hole['first_offset']}..{hole['last_offset']}"
            fate = "Kafka has them no more" if hole["expired"] else "the recorder reads them again"
            console.print(f"[red]missing[/] {where} {span}, {hole['rows']} rows: {fate}")
        for path in partition["apart"]:
            console.print(f"[yellow]apart[/] {path}", soft_wrap=True)
    segments, rows = (sum(part[name] for part in found) for name in ("segments", "rows"))
    missing = sum(hole["rows"] for part in found for hole in part["missing"])
    colour = "red" if missing else "green"
    console.print(f"{segments} segments with {rows} rows read: [{colour}]{missing} rows missing[/]")


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
