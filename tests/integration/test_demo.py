"""`palate demo`, made short: every act of it, and the report that it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import models_dir
from tests.patience import Deadline

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PALATE_MODELS_DIR": str(models_dir()),
        "PALATE_PROFILE__ENGINE": "extractive",  # `make demo` and other tests run the model
    }


def processes_in(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(folder)]


def test_the_demo_plays_all_its_acts_and_stops_what_it_started(
    tmp_path: Path, needs_java: None
) -> None:
    command = [sys.executable, "-m", "deploy", "demo", "--events=3000", "--rate=100", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "var/demo/report.json").read_text())
    assert report["parity"]["mismatches"] == 0
    assert report["parity"]["requests"] >= report["profiles"]["written"] > 0
    assert report["dead_letters"] == report["bad_sent"] == 7
    assert report["events"]["recorded"]["invalid"] == 7
    trip = 11
    assert report["events"]["applied"] == 3000 + trip
    assert report["next_purchases"]["interactions"]["of"] > 0
    assert report["trip"]["new_items"] > 0
    assert report["trip"]["profile_renewed"]
    assert processes_in(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_what_it_started(
    number: signal.Signals, tmp_path: Path, needs_java: None
) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "deploy", "demo", "--events=2000"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    pid_file = tmp_path / "var/demo/run/tracker-0.json"
    deadline = Deadline()
    while not pid_file.exists():
        assert demo.poll() is None, demo.communicate()[1]
        assert not deadline.over(), "no role was started in time"
        time.sleep(0.1)
    demo.send_signal(number)
    _, errors = demo.communicate()
    assert demo.returncode == 130, errors
    assert processes_in(tmp_path) == []
