"""Background processes: found again, stopped, and not confused with others. Real processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import psutil
import pytest

from deploy.processes import Background
from tests.patience import Deadline

OBEDIENT = "import time, sys; print('hello', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('hello', flush=True); time.sleep(60)"
)

Make = Callable[[str], Background]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Background] = []

    def background(code: str) -> Background:
        name = f"part{len(made)}"
        made.append(
            Background(
                name,
                [sys.executable, "-c", code],
                {"PART": name},
                tmp_path / "run" / f"{name}.json",
                tmp_path / "logs" / f"{name}.log",
            )
        )
        return made[-1]

    yield background
    for one in made:
        one.stop(0.1)


def until(condition: Callable[[], bool]) -> None:
    deadline = Deadline()
    while not condition():
        assert not deadline.over(), "the condition did not come true in time"
        time.sleep(0.02)


def test_a_started_process_is_found_again_through_its_pid_file(make: Make) -> None:
    part = make(OBEDIENT)
    pid = part.start()
    again = Background(part.name, [], {}, part.pid_file, part.log_file)
    found = again.process()
    assert found is not None
    assert found.pid == pid
    assert os.getsid(pid) == pid, "it must have a session of its own"


def test_stop_lets_it_end_by_sigterm_and_forgets_it(make: Make) -> None:
    part = make(OBEDIENT)
    part.start()
    until(lambda: "hello" in part.last_lines())
    assert part.stop(10.0) == "stopped"
    assert part.process() is None
    assert not part.pid_file.exists()


def test_stop_kills_what_does_not_drain(make: Make) -> None:
    part = make(STUBBORN)
    pid = part.start()
    until(lambda: "hello" in part.last_lines())
    assert part.stop(0.2).startswith("killed")
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_stopping_what_does_not_run_says_so(make: Make) -> None:
    assert make(OBEDIENT).stop(1.0) == "was not running"


def test_a_reused_pid_is_not_taken_for_ours(make: Make) -> None:
    part = make(OBEDIENT)
    part.pid_file.parent.mkdir(parents=True)
    part.pid_file.write_bytes(orjson.dumps({"pid": os.getpid(), "created": 1.0}))
    assert part.process() is None


def test_a_damaged_pid_file_counts_as_not_running(make: Make) -> None:
    part = make(OBEDIENT)
    part.pid_file.parent.mkdir(parents=True)
    part.pid_file.write_text("{")
    assert part.process() is None


def test_a_killed_process_is_seen_to_be_gone(make: Make) -> None:
    part = make(OBEDIENT)
    pid = part.start()
    running = part.process()
    assert running is not None
    assert running.pid == pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: part.process() is None)
    assert part.stop(1.0) == "was not running"


def test_the_log_shows_only_the_last_start(make: Make) -> None:
    part = make("print('first words', flush=True); raise SystemExit(3)")
    part.start()
    until(lambda: part.process() is None)
    second = Background(
        part.name,
        [sys.executable, "-c", "print('second words')"],
        {},
        part.pid_file,
        part.log_file,
    )
    second.start()
    until(lambda: second.process() is None)
    assert second.last_lines() == ["second words"]


def test_a_signal_during_a_start_waits_until_the_pid_is_noted(make, monkeypatch):
    background = make(OBEDIENT)
    note = Background._note

    def interrupted(self: Background, pid: int) -> None:
        signal.raise_signal(signal.SIGINT)
        note(self, pid)

    monkeypatch.setattr(Background, "_note", interrupted)
    with pytest.raises(KeyboardInterrupt):
        background.start()
    assert background.process() is not None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "2026-11-21 04:00:00,123 ERROR streams.service: tracker stops: oh",
            "streams.service: tracker stops: oh",
        ),
        ('{"level":"ERROR","message":"tracker stops: oh"}', "tracker stops: oh"),
        ("ZeroDivisionError: oh", "ZeroDivisionError: oh"),
    ],
)
def test_the_last_words_are_what_was_said_last(line: str, words: str, make: Make) -> None:
    part = make(f"print({line!r}, flush=True)")
    part.start()
    until(lambda: part.process() is None)
    assert part.last_words() == words


def test_a_process_that_cannot_be_noted_does_not_stay(make: Make) -> None:
    """Nobody would know of it: the next start would make a second one."""
    part = make(OBEDIENT)
    part.pid_file.with_suffix(".tmp").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        part.start()
    ours = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    assert [one for one in ours if "time.sleep(60)" in " ".join(one.cmdline())] == []
