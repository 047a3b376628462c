"""What `palate up` shows while it starts."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from deploy.commands.up import live_parts


def test_off_a_terminal_what_comes_after_the_parts_is_on_a_line_of_its_own() -> None:
    file = StringIO()
    console = Console(file=file, force_terminal=False, width=80)
    with live_parts(console) as say:
        say("kafka", "starting")
        say("kafka", "ready")
    console.print("Kafka at …")
    assert [line.split() for line in file.getvalue().splitlines()] == [
        ["●", "kafka", "ready"],
        ["Kafka", "at", "…"],
    ]
