"""`palate down`."""

from __future__ import annotations

from deploy.commands.up import live_parts
from deploy.console import JsonOption, print_json, terminal
from deploy.stack import Stack
from models.settings import load_settings


def down(as_json: JsonOption = False) -> None:
    """Let every role finish what it holds, then stop them and the broker. Data stay.

    Example: palate down
    """
    stack = Stack(load_settings())
    running = stack.running()
    with live_parts(terminal(), quiet=as_json) as say:
        stack.stop(say)
    if as_json:
        print_json({"stopped": running})
    elif not running:
        terminal().print("Palate was not running.")
