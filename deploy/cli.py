"""The `palate` command: a table of commands, each loaded only when it is called.

Exit codes: 0 done; 1 it failed or a check found something wrong; 2 the command line or a setting
is wrong; 3 what was asked for does not exist (yet); 130 interrupted.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from deploy.interruption import interruptible
from models.errors import PalateError, SettingsError
from models.machine_faults import lacking


class CommandEntry(NamedTuple):
    """One command: `attribute` of `module` is a function, or a typer.Typer with subcommands."""

    name: str
    module: str
    attribute: str
    help: str  # the line in `palate --help`, so that listing commands imports none of them


COMMANDS: Final = (
    CommandEntry(
        "demo", "deploy.commands.demo", "demo", "See it work: real purchases, start to finish."
    ),
    CommandEntry("up", "deploy.commands.up", "up", "Start the broker and the four roles."),
    CommandEntry("down", "deploy.commands.down", "down", "Stop them."),
    CommandEntry(
        "status", "deploy.commands.status", "status", "Roles, lag, staleness, budget, releases."
    ),
    CommandEntry(
        "watch", "deploy.commands.watch", "watch", "Events, profiles and lists as they come."
    ),
    CommandEntry(
        "profile", "deploy.commands.profile", "profile", "A user's profile and what it rests on."
    ),
    CommandEntry("history", "deploy.commands.history", "history", "A user's interactions."),
    CommandEntry(
        "recommend", "deploy.commands.recommend", "recommend", "A user's list, with reasons."
    ),
    CommandEntry(
        "import", "deploy.commands.import_", "import_", "Send files of items or interactions."
    ),
    CommandEntry("schema", "deploy.commands.schema", "schema", "The JSON Schema of a topic."),
    CommandEntry("releases", "deploy.commands.releases", "app", "What serves; promote, roll back."),
    CommandEntry(
        "train", "deploy.commands.train", "train", "Learn from the log; release what is better."
    ),
    CommandEntry("vllm", "deploy.commands.vllm", "vllm", "A vLLM server for the profiler."),
    CommandEntry(
        "outcomes", "deploy.commands.outcomes", "outcomes", "What users did with their lists."
    ),
    CommandEntry("sql", "deploy.commands.sql", "sql", "Query the event log."),
    CommandEntry(
        "dead-letters", "deploy.commands.dead_letters", "app", "Refused records; replay them."
    ),
    CommandEntry(
        "rebuild", "deploy.commands.rebuild", "rebuild", "Make the state again from the log."
    ),
    CommandEntry(
        "rebuild-index", "deploy.commands.rebuild_index", "rebuild_index", "Make vectors again."
    ),
    CommandEntry(
        "check", "deploy.commands.check", "app", "Check parity of what was made with the log."
    ),
    CommandEntry(
        "evaluate", "deploy.commands.evaluate", "evaluate", "Compare systems on what happened."
    ),
    CommandEntry("bench", "deploy.commands.bench", "bench", "Measure, beside alternatives."),
)


class LazyGroup(TyperGroup):
    """Lists commands from the table; imports a command's module when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (signature of the base class)
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """A stand-in that carries the help line, for listings and completion."""
        entry = _entry(cmd_name)
        return entry and TyperCommand(entry.name, help=entry.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, loaded now."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        entry = _entry(name or "")
        return name, load_command(entry) if entry else stand_in, rest


def _entry(name: str) -> CommandEntry | None:
    return next((entry for entry in COMMANDS if entry.name == name), None)


def load_command(entry: CommandEntry) -> Any:
    """Import the command's module and make the click command of its function or app."""
    target = getattr(import_module(entry.module), entry.attribute)
    if isinstance(target, typer.Typer):
        command = typer.main.get_group(target)
        command.name = entry.name
        return command
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(entry.name)(target)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyGroup,
    name="palate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Example: palate demo. Each command shows its own with palate COMMAND --help.",
)


@app.callback()
def palate() -> None:
    """Readable taste profiles and recommendations, kept true while events stream in."""


def main() -> None:
    """Entry point; PalateErrors are printed as one line, without a traceback."""
    interruptible()
    try:
        app()
    except PalateError as error:
        _fail(str(error), 2 if isinstance(error, SettingsError) else 1)
    except ModuleNotFoundError as error:
        if not (advice := lacking(error)):
            raise
        _fail(advice, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(said: str, code: int) -> NoReturn:
    typer.secho(f"error: {said}", fg="red", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
