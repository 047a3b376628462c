"""A slow machine stretches the tests' limits, and a hang is still found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import TICK_S, Deadline, MachineClock, crowding

ROOT = Path(__file__).parents[1]


def test_the_clock_runs_slower_the_more_processes_want_a_core() -> None:
    idle, busy = MachineClock(lambda: 1.0), MachineClock(lambda: 8.0)
    for clock in (idle, busy):
        for _ in range(80):
            clock.tick()
    assert idle() == 80 * TICK_S
    assert busy() == 10 * TICK_S


def test_crowding_is_the_load_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for load, expected in ((0.3, 1.0), (2.0, 1.0), (16.0, 8.0)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert crowding() == expected


def test_a_deadline_is_over_by_that_clock() -> None:
    clock = MachineClock(lambda: 4.0)
    deadline = Deadline(2 * TICK_S, clock)
    for _ in range(8):
        clock.tick()
        assert not deadline.over()
    clock.tick()
    assert deadline.over()


def test_an_alarm_rings_once_unless_it_is_called_off() -> None:
    clock, rung = MachineClock(lambda: 1.0), []
    clock.alarm(TICK_S, lambda: rung.append("kept"))
    clock.alarm(TICK_S, lambda: rung.append("called off"))()
    for _ in range(5):
        clock.tick()
    assert rung == ["kept"]


@pytest.mark.service  # another pytest: seconds
def test_a_test_that_hangs_fails_with_where_it_hangs(tmp_path: Path) -> None:
    waits = "asyncio.run(asyncio.sleep(3_600))"
    tests = tmp_path / "tests"
    tests.mkdir()
    for module in (ROOT / "tests").glob("*.py"):
        if not module.name.startswith("test_"):
            (tests / module.name).write_text(module.read_text())
    hanging = f"import asyncio\n\n\ndef test_hangs():\n    {waits}\n"
    (tests / "test_hangs.py").write_text(hanging)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=1"]
    done = subprocess.run(
        [*command, "tests/test_hangs.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Timeout" in done.stdout
    assert waits in done.stdout
