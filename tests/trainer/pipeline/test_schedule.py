"""When training runs: intervals, the lock, and repetition."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from models.errors import SettingsError, TrainingError
from trainer.pipeline.schedule import alone, repeat, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("1.5d", 129_600)]
)
def test_intervals_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "0h", "1w", "1h30m"])
def test_what_is_no_interval_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SettingsError, match="24h"):
        seconds_of(text)


def test_a_second_training_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(TrainingError, match="another training runs"):
        _hold_elsewhere(tmp_path)


def _hold_elsewhere(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from models.errors import TrainingError\n"
        "from trainer.pipeline.schedule import alone\n"
        "try:\n    with alone(Path(sys.argv[1])): pass\n"
        "except TrainingError as error: sys.exit(str(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise TrainingError(done.stderr)


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from trainer.pipeline.schedule import alone\n"
        "alone(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)

    with alone(tmp_path):
        pass


@pytest.mark.parametrize(
    "error",
    [
        TrainingError("the first two fail as well"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("nobody thought of this"),
    ],
)
def test_a_failed_run_is_logged_and_followed_by_the_next(error: Exception, caplog) -> None:
    stop, runs = threading.Event(), []

    def job() -> None:
        runs.append(1)
        if len(runs) == 3:
            stop.set()
        raise error

    repeat(job, 0.001, stop)

    assert len(runs) == 3
    assert str(error) in caplog.text
