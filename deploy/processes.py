"""One background process with a pid file and a log file."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

LOG_TAIL_BYTES = 16_384
TIME_AND_LEVEL = re.compile(r"^[\d-]+ [\d:,]+ [A-Z]+ ")


@dataclass(frozen=True, slots=True)
class Background:
    """A named process that outlives the command that started it.

    The pid file also holds the process's start time, so that a pid which the system has given to
    another process since is not taken for ours.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    pid_file: Path
    log_file: Path

    def process(self) -> psutil.Process | None:
        """The running process, or None."""
        try:
            noted = orjson.loads(self.pid_file.read_bytes())
            found = psutil.Process(noted["pid"])
            same = abs(found.create_time() - noted["created"]) < 1.0
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
            return None

    def start(self) -> int:
        """Start it in a session of its own, so that Ctrl-C here does not reach it. The pid.

        Ctrl-C and SIGTERM wait until the pid is noted: else nobody would know what to stop.
        """
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log, uninterrupted():
            log.write(f"--- {self.name} starts {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            log.flush()
            child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
            try:
                self._note(child.pid)
            except OSError:  # nobody would know what to stop
                child.kill()
                child.wait()
                raise
        return child.pid

    def _note(self, pid: int) -> None:
        created = psutil.Process(pid).create_time()
        partial = self.pid_file.with_suffix(".tmp")
        partial.write_bytes(orjson.dumps({"pid": pid, "created": created, "name": self.name}))
        partial.replace(self.pid_file)

    def stop(self, grace_s: float) -> str:
        """SIGTERM, wait for it to drain, then SIGKILL its whole session. What happened."""
        running = self.process()
        if running is None:
            self.pid_file.unlink(missing_ok=True)
            return "was not running"
        outcome = "stopped"
        running.terminate()
        try:
            running.wait(grace_s)
        except psutil.TimeoutExpired:
            outcome = f"killed, after {grace_s:.0f} s of waiting for it to drain"
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.killpg(running.pid, signal.SIGKILL)
        self.pid_file.unlink(missing_ok=True)
        return outcome

    def last_lines(self, count: int = 20) -> list[str]:
        """The end of the log since the last start."""
        if not self.log_file.exists():
            return []
        with self.log_file.open("rb") as log:
            log.seek(max(0, self.log_file.stat().st_size - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        starts = [n for n, line in enumerate(lines) if line.startswith(f"--- {self.name} starts")]
        return lines[starts[-1] + 1 if starts else 0 :][-count:]

    def last_words(self) -> str:
        """The last line of the log since the last start, without its time; "" if there is none."""
        lines = [line for line in self.last_lines() if line.strip()]
        if not lines:
            return ""
        line = lines[-1].strip()
        with contextlib.suppress(ValueError, KeyError, TypeError):  # as lines for machines
            line = orjson.loads(line)["message"]
        return TIME_AND_LEVEL.sub("", line)[:300]


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block has ended; they only reach the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda got, _frame: came.append(got)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for missed in came:
        signal.raise_signal(missed)
