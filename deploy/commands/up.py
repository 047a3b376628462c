"""`palate up`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from deploy.console import JsonOption, print_json, terminal
from deploy.interruption import stopped_by_signals
from deploy.stack import Say, Stack
from models.settings import load_settings

MARKS = {"ready": "[green]●[/]", "stopped": "[dim]○[/]", "was not running": "[dim]○[/]"}
PATIENCE_S = 3.0  # what takes longer shows its seconds


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
    stopped_by_signals()
    try:
        stack.supervise(lambda part, what: console.print(f"{part}: {what}"))
    except KeyboardInterrupt:
        stack.stop(lambda part, what: console.print(f"{part}: {what}"))


@contextmanager
def live_parts(console: Console, quiet: bool = False) -> Iterator[Say]:
    """Show what each part of the stack is doing, and for how long if it is more than seconds.

    On a terminal as a table that is kept up to date, elsewhere as a line for every change.
    """
    parts = StackParts()
    if quiet:
        yield lambda _part, _what: None
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=4, get_renderable=parts.table):
            yield parts.note
    else:
        yield lambda part, what: _print_news(console, parts, part, what)


class StackParts:
    """Each part of the stack with what it is doing, and since when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: dict[str, tuple[str, float]] = {}

    def note(self, part: str, what: str) -> None:
        """Keep what the part is doing; the same again changes nothing."""
        if self.state(part) != what:
            self._states[part] = (what, self._clock())

    def state(self, part: str) -> str | None:
        """What the part was last noted to do."""
        return self._states[part][0] if part in self._states else None

    def table(self) -> Table:
        """All parts as they are now."""
        table = Table.grid(padding=(0, 1))
        for name, (what, since) in self._states.items():
            table.add_row(_mark(what), name, escape(what) + self._waited(what, since))
        return table

    def _waited(self, what: str, since: float) -> str:
        seconds = self._clock() - since
        return f" [dim]{seconds:.0f} s[/]" if what not in MARKS and seconds > PATIENCE_S else ""


def _print_news(console: Console, parts: StackParts, part: str, what: str) -> None:
    if parts.state(part) != what:
        parts.note(part, what)
        console.print(_mark(what), part, escape(what), soft_wrap=True)


def _mark(what: str) -> str:
    return MARKS.get(what, "[yellow]◌[/]")
