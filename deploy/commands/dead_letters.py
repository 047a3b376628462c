"""`palate dead-letters`: list what was refused; send it again, corrected or as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from deploy.console import JsonOption, print_json, run, terminal
from models.errors import SettingsError
from models.settings import Settings, load_settings

if TYPE_CHECKING:
    from streams.dead_letter_replay import Correction, DeadLetter, ReplayResult

SHOWN_CHARS: Final = 60

ReasonOption = Annotated[
    list[str], typer.Option("--reason", help="Only these reasons (repeatable).")
]
TopicOption = Annotated[
    list[str], typer.Option("--topic", help="Only from these topics (repeatable).")
]
LogOption = Annotated[
    bool, typer.Option("--from-log", help="Read the event log in place of Kafka.")
]

app = typer.Typer()


@app.callback(invoke_without_command=True)
def dead_letters(
    context: typer.Context,
    reason: ReasonOption = [],  # noqa: B006 (typer copies it)
    topic: TopicOption = [],  # noqa: B006
    from_log: LogOption = False,
    limit: Annotated[int, typer.Option(min=1, help="Show so many of the newest.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List refused records: why, where they stood, and how they begin.

    Example: palate dead-letters --reason not_json
    """
    if context.invoked_subcommand:
        return
    letters = read_letters(load_settings(), reason, topic, from_log)
    counts = Counter(letter.reason for letter in letters)
    newest = sorted(letters, key=lambda letter: letter.kafka_time)[-limit:]
    if as_json:
        print_json([as_line(letter) for letter in newest])
        return
    _print_table(newest)
    total = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    terminal().print(f"{len(letters)} dead letters{': ' if total else ''}{total}")


@app.command()
def replay(
    corrections: Annotated[
        Path | None,
        typer.Argument(help="JSONL: topic, partition, offset, and the corrected value."),
    ] = None,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Send the original bytes under the right key.")
    ] = False,
    reason: ReasonOption = [],  # noqa: B006
    topic: TopicOption = [],  # noqa: B006
    from_log: LogOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send refused records again. What was sent before is left out.

    The file has lines as `palate dead-letters --json` prints them, with `value` corrected. With
    --as-is no file is needed: the originals are sent whose reason may have passed (by default
    future and wrong_key). Exit code 1 if one is refused again.

    Example: palate dead-letters replay corrected.jsonl
    """
    if as_is == (corrections is not None):
        raise SettingsError("give either a file of corrections or --as-is")
    settings = load_settings()
    found = _corrections(settings, corrections, reason, topic, from_log)
    outcomes = run(_replay(settings, found))
    _report(outcomes, as_json)
    if any(outcome.result == "refused" for outcome in outcomes):
        raise typer.Exit(1)


def read_letters(
    settings: Settings, reasons: list[str], topics: list[str], from_log: bool
) -> list[DeadLetter]:
    """The chosen dead letters, from the topic or the log."""
    from streams import dead_letter_replay as letters
    from streams.event_log import SegmentLog

    async def read() -> list[DeadLetter]:
        return [
            letter async for letter in letters.from_topic(settings, settings.kafka.answer_within_s)
        ]

    log = SegmentLog(settings.log_dir, skip_damaged=True)
    found = letters.from_log(log) if from_log else run(read())
    return list(letters.chosen(found, reasons, topics))


def as_line(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as JSON; text that is not UTF-8 is shown with replacement characters."""
    from models.schemas import to_rfc3339

    return {
        **letter.origin._asdict(),
        "reason": letter.reason,
        "detail": letter.detail,
        "time": to_rfc3339(letter.kafka_time),
        "size": letter.size,
        "whole": letter.whole,
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
        "value": None if letter.value is None else letter.value.decode(errors="replace"),
    }


def _corrections(
    settings: Settings, file: Path | None, reasons: list[str], topics: list[str], from_log: bool
) -> Iterable[Correction | ReplayResult]:
    from streams import dead_letter_replay as letters

    if file is not None:
        if not file.is_file():
            raise SettingsError(f"{file} is not a file; give a JSONL file of corrections")
        return list(letters.read_corrections(file))
    found = read_letters(settings, reasons or list(letters.PASSING), topics, from_log)
    return [letters.as_it_was(letter) for letter in found]


async def _replay(
    settings: Settings, found: Iterable[Correction | ReplayResult]
) -> list[ReplayResult]:
    from streams import dead_letter_replay as letters
    from streams.kafka.clients import producer
    from streams.kafka.connectivity import start_within

    sender = await start_within(
        settings, lambda: producer(settings), settings.kafka.answer_within_s
    )
    try:
        replayed = letters.replayed_list(settings)
        return [outcome async for outcome in letters.replay(found, settings, sender, replayed)]
    finally:
        await sender.stop()


def _report(outcomes: list[ReplayResult], as_json: bool) -> None:
    from rich.markup import escape

    counts = Counter(outcome.result for outcome in outcomes)
    if as_json:
        rows = [o.origin._asdict() | {"result": o.result, "detail": o.detail} for o in outcomes]
        print_json({"counts": dict(counts), "records": rows})
        return
    console = terminal()
    for outcome in outcomes:
        if outcome.result == "refused":
            topic, partition, offset = outcome.origin
            where = f"{topic} partition {partition} offset {offset}"
            console.print(f"[red]refused[/] {where}: {escape(outcome.detail)}")
    console.print(", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing to do")


def _print_table(letters: list[DeadLetter]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("reason", "topic/partition/offset", "time")
    for heading in ("detail", "begins with"):
        table.add_column(heading, overflow="fold")
    for letter in letters:
        line, where = as_line(letter), "/".join(map(str, letter.origin))
        beginning = ascii((line["value"] or "")[:SHOWN_CHARS])[1:-1]
        cells = (letter.reason, where, line["time"], letter.detail, beginning)
        table.add_row(*(escape(cell) for cell in cells))
    terminal().print(table)
