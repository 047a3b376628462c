"""`palate up`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from deploy.console import JsonOption, print_json, terminal
from deploy.stack import Say, Stack
from models.settings import load_settings

MARKS = {"ready": "[green]●[/]", "stopped": "[dim]○[/]", "was not running": "[dim]○[/]"}


def up(
    workers: Annotated[
        int | None, typer.Option(help="Tracker processes (settings: workers).")
    ] = None,
    foreground: Annotated[bool, typer.Option(help="Stay, and start again what ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the broker and the four roles in the background; wait until all are ready.

    What runs already is left alone, so this also starts again what has died.

    Example: palate up --workers 2
    """
    settings = load_settings(**({} if workers is None else {"workers": workers}))
    stack, console = Stack(settings), terminal()
    with live_parts(console, quiet=as_json) as say:
        started = stack.start(say, wait=not foreground)  # who stays starts again what ends
    if as_json:
        print_json({"started": started, "running": stack.running()})
    else:
        _say_where(stack, started, console)
    if foreground:
        _stay(stack, console)


def _say_where(stack: Stack, started: list[str], console: Console) -> None:
    if not started:
        console.print("Palate is already running.")
    settings = stack.settings
    console.print(
        f"Kafka    {settings.kafka.bootstrap}, topics {settings.topic('interactions')}, "
        f"{settings.topic('recommendations')}, …\n"
        f"Logs     {stack.logs}\n"
        f"Metrics  {stack.roles[0].url}/metrics and those of the other roles: palate status\n"
        "Next     palate import items FILE, palate watch, palate down",
        soft_wrap=True,
    )


def _stay(stack: Stack, console: Console) -> None:
    console.print("Watching over them; Ctrl-C stops everything.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a service manager stops us
    try:
        stack.supervise(lambda part, what: console.print(f"{part}: {what}"))
    except KeyboardInterrupt:
        stack.stop(lambda part, what: console.print(f"{part}: {what}"))


@contextmanager
def live_parts(console: Console, quiet: bool = False) -> Iterator[Say]:
    """A table that shows what each part of the stack is doing, kept up to date."""
    states: dict[str, str] = {}
    if quiet:
        yield lambda _part, _what: None
        return
    with Live(console=console, refresh_per_second=4) as live:

        def say(part: str, what: str) -> None:
            states[part] = what
            table = Table.grid(padding=(0, 1))
            for name, state in states.items():
                table.add_row(MARKS.get(state, "[yellow]◌[/]"), name, escape(state))
            live.update(table)

        yield say
    if not console.is_terminal:
        console.line()  # a file or a pipe gets the last state only, without an end of line
