"""Hosted CI, .ci/run and the hooks before a commit run what the Makefile has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def recipe(target: str) -> str:
    """The lines that a make target runs."""
    [found] = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    return found


def prerequisites(target: str) -> list[str]:
    [found] = re.findall(rf"^{target}:(.*?)(?:##.*)?$", MAKEFILE, re.MULTILINE)
    return found.split()


def test_the_steps_of_hosted_ci_come_before_all_that_ci_run_does() -> None:
    steps = re.findall(r"^ +- run: (.*)$", WORKFLOW, re.MULTILINE)
    assert steps == ["make check", "make test-fast", "make test-stream", ".ci/run"]
    assert re.findall(r"^make .*$", (ROOT / ".ci/run").read_text(), re.MULTILINE) == [
        "make check",
        "make test",
    ]
    assert prerequisites("test") == ["test-fast", "test-stream"]


def test_hosted_ci_runs_on_the_oldest_python_with_pinned_actions_and_no_secrets() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = re.search(r">=([\d.]+)", project["requires-python"])
    assert oldest is not None
    assert set(re.findall(r'python-version: "(.*)"', WORKFLOW)) == {oldest[1]}
    actions = re.findall(r"uses: (\S+)", WORKFLOW)
    assert actions
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+(\.\d+)*", action) for action in actions)
    assert "secrets" not in WORKFLOW


def test_the_hooks_are_the_commands_of_make_check_from_the_environment() -> None:
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    hooks = re.findall(r"entry: \.venv/bin/(.*?)(?: --force-exclude)?$", config, re.MULTILINE)
    checks = [line.replace(" --check", "") for line in recipe("check").splitlines()]
    assert [f"\t@$(BIN)/{hook}" for hook in hooks] == [line.removesuffix(" .") for line in checks]
    assert re.findall(r"repo: (.*)", config) == ["local"]
    assert config.count("language: system") == len(hooks) == config.count("- id:")
