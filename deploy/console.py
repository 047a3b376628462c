"""What commands share: the terminal, the `--json` option, running a coroutine."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console

NOT_FOUND = 3  # exit code: what was asked for does not exist (yet)

JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON for machines.")]

T = TypeVar("T")


def terminal(quiet: bool = False) -> Console:
    """Standard output for people; width and colour as the terminal allows."""
    return Console(highlight=False, quiet=quiet)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a fresh event loop."""
    # A broker that is away is said by the command in its own words, once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return asyncio.run(main)


def not_found(message: str) -> typer.Exit:
    """Say on standard error what is missing; raise what this returns."""
    typer.secho(message, fg="yellow", err=True)
    return typer.Exit(NOT_FOUND)
