"""The whole of Palate on one machine: the embedded broker and the roles, started and stopped.

Everything is found again through files under `data_dir`: `run/` (pids), `logs/`, `kafka/`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import orjson
from filelock import FileLock, Timeout

from deploy.broker import Broker
from deploy.console import run
from deploy.processes import Background
from models.errors import StackError
from models.settings import Settings

STANDSTILL_S: Final = 600.0  # the longest step takes a minute on a busy machine
DRAIN_S: Final = 30.0  # a role ends by itself within liveness.drain_s, which is less
POLL_S: Final = 0.3
ASK_EVERY_S: Final = 2.0  # whoever watches over the roles asks whether they are ready
FIRST_PAUSE_S: Final = 1.0  # before a part that has ended is started again; doubled each time
LONGEST_PAUSE_S: Final = 60.0
STEADY_S: Final = 60.0  # a part that has run for so long is not in a crash loop
STARTING: Final = "starting"
CHECKOUT: Final = str(Path(__file__).resolve().parent.parent)

Say = Callable[[str, str], None]  # (part, what it is doing)


@dataclass(frozen=True, slots=True)
class Role:
    """One process of the stack."""

    name: str
    module: str
    url: str  # of its health server
    worker: int = 0


def roles(settings: Settings) -> list[Role]:
    """What `palate up` starts, in the order in which it stops."""
    ports = settings.metrics
    at = f"http://{ports.host}"
    trackers = [
        Role(f"tracker-{n}", "streams.tracker", f"{at}:{ports.tracker_port + n}", n)
        for n in range(settings.workers)
    ]
    return [
        *trackers,
        Role("profiler", "streams.profiler", f"{at}:{ports.profiler_port}"),
        Role("indexer", "streams.indexer", f"{at}:{ports.indexer_port}"),
        Role("recorder", "streams.recorder", f"{at}:{ports.recorder_port}"),
    ]


class Stack:
    """Start, watch and stop the processes that `settings` describe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.roles = roles(settings)
        self.broker = Broker(settings) if settings.kafka.embedded else None

    def background(self, role: Role) -> Background:
        """The role's process, running or not."""
        path = os.pathsep.join(filter(None, [CHECKOUT, os.environ.get("PYTHONPATH")]))
        return Background(
            name=role.name,
            command=[sys.executable, "-m", role.module],
            environment={"PALATE_WORKER": str(role.worker), "PYTHONPATH": path},
            pid_file=self.settings.data_dir / "run" / f"{role.name}.json",
            log_file=self.settings.data_dir / "logs" / f"{role.name}.log",
        )

    def start(self, say: Say, *, wait: bool = True) -> list[str]:
        """Start what is missing and wait until all is ready. Names of what was started.

        Raises StackError with a role's last log lines if it ends instead of getting ready.
        """
        with self._lock():
            started = self.start_broker(say)
            started += [role.name for role in self.roles if self._start_role(role, say)]
        if wait:
            self._wait_ready(say, started)  # unlocked, so that `palate down` may end the waiting
        return started

    def start_broker(self, say: Say) -> list[str]:
        """Start the embedded broker, if it is ours and not running, and create topics."""
        started = []
        if self.broker and not self.broker.running():
            self.broker.start(lambda what: say("kafka", what))
            started.append("kafka")
        say("kafka", "making its topics, where they are missing")
        self._ensure_topics()
        say("kafka", "ready")
        return started

    def _ensure_topics(self) -> None:
        from streams.kafka.topics import ensure_topics_within

        run(ensure_topics_within(self.settings, self.settings.kafka.answer_within_s))

    def _start_role(self, role: Role, say: Say) -> bool:
        background = self.background(role)
        if background.process():
            return False
        say(role.name, "starting")
        background.start()
        return True

    def _wait_ready(self, say: Say, started: list[str]) -> None:
        waiting = list(self.roles)
        reasons: dict[str, str | None] = {}
        moved = time.monotonic()
        while waiting:
            for role in list(waiting):
                # One that was found running may have been about to end.
                if role.name not in started and self._start_role(role, say):
                    started.append(role.name)
                reason = self.not_ready(role)
                if reason is None:
                    waiting.remove(role)
                say(role.name, reason or "ready")
                if reasons.get(role.name) != reason:
                    reasons[role.name], moved = reason, time.monotonic()
            if waiting and time.monotonic() - moved > STANDSTILL_S:
                raise StackError(self._at_a_standstill(waiting))
            time.sleep(POLL_S)

    def not_ready(self, role: Role) -> str | None:
        """None if the role serves; else why not. Raises StackError if it is not running."""
        background = self.background(role)
        if background.process() is None:
            raise StackError(_died(background))
        reason = readiness(role)
        return last_step(background) if reason == STARTING else reason

    def _at_a_standstill(self, waiting: list[Role]) -> str:
        names = ", ".join(f"{role.name} ({self.not_ready(role)})" for role in waiting)
        return f"not ready, and nothing new for {STANDSTILL_S:.0f} s: {names}; see {self.logs}"

    def stop(self, say: Say) -> None:
        """Let every role drain and stop it, then the broker."""
        with self._lock():
            parts = self.roles + self._left_over()
            with ThreadPoolExecutor(len(parts)) as at_once:
                for role, outcome in zip(parts, at_once.map(self._stop_role, parts), strict=True):
                    say(role.name, outcome)
            if self.broker and self.broker.running():
                say("kafka", "stopping")
                self.broker.stop()
                say("kafka", "stopped")

    def _stop_role(self, role: Role) -> str:
        return self.background(role).stop(DRAIN_S)

    def _left_over(self) -> list[Role]:
        """Roles of an earlier start with more workers than the settings now say."""
        known = {role.name for role in self.roles}
        names = {path.stem for path in (self.settings.data_dir / "run").glob("tracker-*.json")}
        return [Role(name, "streams.tracker", "") for name in sorted(names - known)]

    def supervise(self, say: Say) -> None:
        """Start again whatever ends, with growing pauses, and say what becomes of each part.

        Returns never; Ctrl-C leaves it.
        """
        parts = self._supervised()
        said: dict[str, str] = {}
        asked = 0.0
        while True:
            now = time.monotonic()
            for part in parts:
                part.look(now, say)
            if now - asked >= ASK_EVERY_S:
                asked = now
                self._say_changes(said, say)
            time.sleep(POLL_S)

    def _supervised(self) -> list[Supervised]:
        roles = [self._supervised_role(role) for role in self.roles]
        if self.broker is None:
            return roles
        return [Supervised("kafka", self.broker.running, self.broker.start, str), *roles]

    def _supervised_role(self, role: Role) -> Supervised:
        background = self.background(role)
        return Supervised(
            role.name,
            lambda: background.process() is not None,
            background.start,
            background.last_words,
        )

    def _say_changes(self, said: dict[str, str], say: Say) -> None:
        for role in self.roles:
            if self.background(role).process() is not None:
                state = readiness(role) or "ready"
                if said.get(role.name) != state:
                    say(role.name, state)
                said[role.name] = state

    def running(self) -> list[str]:
        """Names of what runs now."""
        names = [role.name for role in self.roles if self.background(role).process()]
        return (["kafka"] if self.broker and self.broker.running() else []) + names

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.settings.data_dir / "logs"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        run = self.settings.data_dir / "run"
        run.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(run / "stack.lock", timeout=1):
                yield
        except Timeout as error:
            raise StackError(
                f"another palate up or down is at work in {self.settings.data_dir}; wait for it"
            ) from error


class Supervised:
    """A part that is started again whenever it has ended.

    The pauses before that grow while it does not stay up: a crash loop does not spin.
    """

    def __init__(
        self,
        name: str,
        running: Callable[[], bool],
        start: Callable[[], object],
        last_words: Callable[[], str],
    ) -> None:
        self._name, self._running, self._start = name, running, start
        self._last_words = last_words
        self._pause = FIRST_PAUSE_S
        self._due: float | None = None  # when it is to be started again
        self._since: float | None = None  # it has been seen to run

    def look(self, now: float, say: Say) -> None:
        """Note that it runs, or that it has ended; start it again when its pause is over."""
        if self._running():
            self._due, self._since = None, self._since or now
            if now - self._since >= STEADY_S:
                self._pause = FIRST_PAUSE_S
        elif self._due is None:
            self._due = now + self._pause
            words = self._last_words()
            say(self._name, f"ended{f' ({words})' if words else ''}; again in {self._pause:.0f} s")
        elif now >= self._due:
            self._due = self._since = None
            self._pause = min(LONGEST_PAUSE_S, 2 * self._pause)
            self._start_again(say)

    def _start_again(self, say: Say) -> None:
        try:
            self._start()
            say(self._name, "started again")
        except (StackError, OSError) as error:  # a full disk, for instance
            say(self._name, f"cannot be started: {error}")


def fetch(url: str) -> httpx.Response:
    """GET of a health server: on this machine, so neither a proxy nor certificates are wanted."""
    return httpx.get(url, timeout=2.0, trust_env=False, verify=False)


def readiness(role: Role) -> str | None:
    """None if `/readyz` answers 200; else its reason, or that nothing answers."""
    try:
        answer = fetch(f"{role.url}/readyz")
    except httpx.ConnectError:  # nothing listens yet
        return STARTING
    except httpx.HTTPError as error:
        return f"does not answer ({type(error).__name__})"
    return None if answer.status_code == 200 else answer.text.strip()[:200] or "not ready"


def last_step(background: Background) -> str:
    """What a role that does not answer yet says in its log that it is doing."""
    for line in reversed(background.last_lines()):
        step = _step(line)
        if step and not step.startswith(f"{background.name.partition('-')[0]} starts"):
            return f"{STARTING}: {step}"
    return STARTING


def _step(line: str) -> str | None:
    """The message of one of Palate's own log lines, in either format; of others None."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError, KeyError):
            found = orjson.loads(line)
            return str(found["message"]) if _ours(found["level"], found["logger"]) else None
    level, _, rest = " ".join(line.split(" ")[2:]).partition(" ")
    logger, _, message = rest.partition(": ")
    return message.partition("  ")[0] if _ours(level, logger) else None


def _ours(level: str, logger: str) -> bool:
    return level == "INFO" and logger.startswith(("models.", "streams."))


def _died(background: Background) -> str:
    tail = "\n".join(f"    {line}" for line in background.last_lines())
    return (
        f"{background.name} is not running; the end of {background.log_file}:\n{tail}\n"
        "Mend the cause, then `palate up` starts what is missing; `palate down` stops the rest."
    )
