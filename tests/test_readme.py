"""README and docs: their commands exist, their paths and links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup

from deploy import cli
from models.settings import Settings
from tests.readme import README, shell_lines

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
NEW = {"streams/importers/listens.py", "deploy/commands/popular.py"}  # the examples of the recipes


PALATE_LINES = [line for line in shell_lines() if line.startswith("palate ")]


def parse(line: str) -> None:
    """Parse a command line as palate would, without running it. Raises on what it would refuse."""
    _, name, *arguments = shlex.split(line)
    command: Any = cli.load_command(next(e for e in cli.COMMANDS if e.name == name))
    while isinstance(command, TyperGroup) and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    command.make_context(name, arguments)


@pytest.mark.parametrize("line", PALATE_LINES)
def test_every_palate_command_of_the_readme_is_understood(line: str) -> None:
    parse(line)


def test_a_command_that_palate_does_not_know_would_be_found() -> None:
    with pytest.raises(Exception, match=r"[Nn]o such option"):
        parse("palate up --no-such-option")


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", README + CONTRIBUTING, re.M)))
)
def test_every_make_target_of_readme_and_contributing_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"[`\s]((?:\w+/)+\w+\.(?:py|md))\b", CONTRIBUTING)) - NEW)
)
def test_every_file_of_contributing_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(
    ("name", "path"), sorted(set(re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", CONTRIBUTING)))
)
def test_what_contributing_names_in_a_file_is_there(name: str, path: str) -> None:
    assert re.search(rf"\b{name}\b", (ROOT / path).read_text())


def test_make_help_lists_every_target_with_its_meaning() -> None:
    makefile = (ROOT / "Makefile").read_text()
    printed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    typed = phony - {"java"}  # part of others
    assert {"help", "setup", "demo", "test", "check", "docs", "bench", "clean"} <= typed
    assert set(re.findall(r"make ([a-z-]+) +\S", printed)) == typed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_path_of_the_layout_exists_and_every_folder_is_in_it() -> None:
    layout = README.split("## Layout")[1].split("## Glossary")[0]
    paths = [
        p for row in re.findall(r"^\| (`.*?) \|", layout, re.M) for p in re.findall(r"`(.+?)`", row)
    ]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    folders = {
        f"{path.parent.relative_to(ROOT)}/"
        for package in ("models", "streams", "deploy")
        for path in (ROOT / package).glob("*/__init__.py")
    }
    assert folders <= set(paths)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"PALATE_[A-Z_]+[A-Z]", README))))
def test_every_variable_of_the_readme_is_a_setting(name: str) -> None:
    group: Any = Settings
    for field in name.removeprefix("PALATE_").lower().split("__"):
        assert field in group.model_fields
        group = group.model_fields[field].annotation


def test_the_readmes_quick_commands_run() -> None:
    for line in ("palate --help", "palate schema interactions"):
        done = subprocess.run(
            [sys.executable, "-m", "deploy", *line.split()[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "100"},
        )
        assert done.returncode == 0, done.stderr
        assert line.split()[-1].strip("-") in done.stdout.lower() or "Usage" in done.stdout


def test_the_example_event_of_the_readme_is_valid() -> None:
    from models.schemas import Interaction

    line = re.search(r"```json\n(.*?)\n```", README, re.DOTALL)
    assert line is not None
    assert Interaction.model_validate_json(line[1]).event_id == "e-1"
