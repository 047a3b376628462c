"""What `palate up` shows while it starts."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from deploy import stack as stack_module
from deploy.commands.up import StackParts, live_parts
from deploy.processes import Background
from deploy.stack import Stack, last_step
from models.errors import StackError


def test_off_a_terminal_every_change_is_a_line_of_its_own() -> None:
    file = StringIO()
    console = Console(file=file, force_terminal=False, width=80)
    with live_parts(console) as say:
        for what in ("starting", "starting", "ready", "ready"):
            say("kafka", what)
    console.print("Kafka at …")
    assert [line.split() for line in file.getvalue().splitlines()] == [
        ["◌", "kafka", "starting"],
        ["●", "kafka", "ready"],
        ["Kafka", "at", "…"],
    ]


def test_on_a_terminal_what_takes_longer_shows_its_seconds() -> None:
    now = [0.0]
    parts = StackParts(lambda: now[0])
    parts.note("kafka", "ready")
    parts.note("profiler", "starting")
    parts.note("profiler", "starting")  # said again, and not begun again
    now[0] = 42.0
    console = Console(file=StringIO(), width=80)
    with console.capture() as shown:
        console.print(parts.table())
    lines = [line.split() for line in shown.get().splitlines()]
    assert lines == [["●", "kafka", "ready"], ["◌", "profiler", "starting", "42", "s"]]


TEXT = """\
2026-11-27 18:00:00,123 INFO streams.service: profiler starts with settings {"a": "b: c"}
2026-11-27 18:00:01,123 INFO models.engines.model_files: converting a.gguf to b, once  n=1
2026-11-27 18:00:02,123 WARNING streams.kafka.topics: something else
2026-11-27 18:00:02,123 INFO transformers: of no interest
Loading weights:  50%
"""


def as_json(text: str) -> str:
    """The same lines as a role with PALATE_LOG_FORMAT=json writes them."""
    lines = []
    for line in text.splitlines()[:4]:
        _, _, level, logger, message = line.split(" ", 4)
        message = message.partition("  ")[0]
        lines.append({"level": level, "logger": logger.rstrip(":"), "message": message})
    return "".join(orjson.dumps(line).decode() + "\n" for line in lines)


@pytest.fixture
def role(tmp_path: Path) -> Background:
    return Background("profiler", [], {}, tmp_path / "profiler.json", tmp_path / "profiler.log")


@pytest.mark.parametrize("written", [TEXT, as_json(TEXT)], ids=["text", "json"])
def test_a_role_that_does_not_answer_yet_is_shown_with_what_it_does(
    role: Background, written: str
) -> None:
    assert last_step(role) == "starting"
    role.log_file.write_text(written)
    assert last_step(role) == "starting: converting a.gguf to b, once"


@pytest.mark.parametrize("role", ["profiler", "indexer"])
def test_what_a_role_logs_while_it_loads_models_is_such_a_step(role: str) -> None:
    main = importlib.import_module(f"streams.{role}.__main__")  # runs under another name
    assert main.log.name == f"streams.{role}"


def test_before_its_first_step_a_role_is_starting(role: Background) -> None:
    role.log_file.write_text(TEXT.splitlines()[0])
    assert last_step(role) == "starting"


class SlowStack(Stack):
    """Roles that get ready after many steps, or stand still at one."""

    def __init__(self, steps: Iterator[str | None]) -> None:
        self._steps = steps
        self.roles = [stack_module.Role("profiler", "streams.profiler", "")]

    def not_ready(self, role: stack_module.Role) -> str | None:
        return next(self._steps)

    logs = Path("logs")


def test_starting_takes_as_long_as_there_is_something_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "POLL_S", 0.02)
    monkeypatch.setattr(stack_module, "STANDSTILL_S", 0.2)
    began, said = time.monotonic(), []
    steps = [*(f"step {n}" for n in range(30)), None]
    SlowStack(iter(steps))._wait_ready(lambda _part, what: said.append(what), ["profiler"])
    assert said[-1] == "ready"
    assert time.monotonic() - began > 0.2  # longer than anything may stand still

    def stuck() -> Iterator[str]:
        while True:
            yield "stuck"

    with pytest.raises(StackError, match=r"nothing new .* profiler \(stuck\)"):
        SlowStack(stuck())._wait_ready(lambda _part, _what: None, ["profiler"])
