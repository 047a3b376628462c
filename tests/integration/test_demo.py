"""`palate demo`, made short: every act of it, and the report that it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import models_dir

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def test_the_demo_plays_all_its_acts_and_stops_what_it_started(
    tmp_path: Path, needs_java: None
) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PALATE_MODELS_DIR": str(models_dir()),
        "PALATE_PROFILE__ENGINE": "extractive",  # `make demo` and other tests run the model
    }
    command = [sys.executable, "-m", "deploy", "demo", "--events=3000", "--rate=100", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
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
    left = [p for p in psutil.process_iter(["cmdline", "cwd"]) if p.info["cwd"] == str(tmp_path)]
    assert left == []
