"""The whole stack as processes of their own, as `palate up` runs it, to be killed and asked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import orjson
import psutil
import pytest
from rocksdict import AccessType, Options, Rdict

from deploy.observe import MetricLine, scrape
from deploy.stack import Role, Stack
from models.settings import Settings
from streams.changelog import read_changelog
from streams.codec import partition_for
from streams.partition_clock import PartitionClock
from streams.tracker.state import CLOCK_KEY, HEAD, User, decode_clock, load
from tests.conftest import role_environment
from tests.patience import until as until  # tests of the stack find it here


class Live:
    """A running stack. `up` is what `palate up` does: start what is missing, wait until ready."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stack = Stack(settings)

    def up(self) -> None:
        self.stack.start(lambda _part, _what: None)

    def start(self, *names: str) -> None:
        """Start roles without waiting for the others."""
        for role in self._roles(names):
            self.stack.background(role).start()

    def kill(self, *names: str) -> None:
        """kill -9, of a role by its name or of the broker (kafka), and wait for the end."""
        processes = [self._process(name) for name in names]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes)

    def _process(self, name: str) -> psutil.Process:
        if name == "kafka":
            assert self.stack.broker is not None
            return psutil.Process(self.stack.broker.pid())
        [role] = self._roles([name])
        process = self.stack.background(role).process()
        assert process is not None, f"{name} has ended by itself: {self.log_of(name)}"
        return process

    def _roles(self, names: Any) -> list[Role]:
        return [role for role in self.stack.roles if role.name in names]

    def samples(self, name: str) -> list[MetricLine]:
        """The metrics of a role; none while it does not answer."""
        [role] = self._roles([name])
        return scrape(role.url)

    def log_of(self, name: str) -> str:
        """The end of a role's log."""
        return (self.stack.logs / f"{name}.log").read_text(errors="replace")[-3_000:]

    def palate(self, *arguments: str) -> Any:
        """What a command prints as JSON; it must end with 0."""
        return orjson.loads(self.command(*arguments, "--json"))

    def command(self, *arguments: str) -> bytes:
        """What a command prints; it must end with 0."""
        command = [sys.executable, "-m", "deploy", *arguments]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, (done.stdout[-1_000:], done.stderr[-3_000:])
        return done.stdout

    def end(self) -> None:
        """SIGTERM to all, which drains; the broker last."""
        self.stack.stop(lambda _part, _what: None)


@contextmanager
def live(settings: Settings) -> Iterator[Live]:
    """The stack of `settings`, not started; whatever runs at the end is stopped."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**role_environment(settings), "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        patch.setenv("PALATE_LOG_FORMAT", os.environ.get("PALATE_LOG_FORMAT", "text"))
        running = Live(settings)
        try:
            yield running
        finally:
            running.end()


class TrackerState(NamedTuple):
    """What table `histories` holds."""

    users: dict[str, User]
    clocks: dict[int, PartitionClock]


def tracker_state(settings: Settings) -> TrackerState:
    """The tracker's state as the changelog holds it now: what another machine would read."""
    return _state(settings, lambda number: asyncio.run(read_changelog(settings, number)))


def state_on_disk(settings: Settings) -> TrackerState:
    """The state as worker 0 has it in RocksDB; it must not be running."""
    folder = settings.data_dir / "state" / "worker-0" / "histories"

    def table(partition: int) -> dict[bytes, bytes]:
        with Rdict(
            str(folder / str(partition)),
            options=Options(raw_mode=True),
            access_type=AccessType.read_only(),
        ) as database:
            return dict(database.items())

    return _state(settings, table)


def _state(settings: Settings, table_of: Callable[[int], dict[bytes, bytes]]) -> TrackerState:
    users, clocks = {}, {}
    for partition in range(settings.kafka.partitions):
        table = table_of(partition)
        for user_id in [key[1:].decode() for key in table if key.startswith(HEAD)]:
            users[user_id] = load(user_id, table.get, settings.windows.history_cap)
        clocks[partition] = decode_clock(table.get(CLOCK_KEY))[0]
    return TrackerState(users, clocks)


def home(user_id: str, settings: Settings) -> int:
    """The user's partition."""
    return partition_for(user_id.encode(), settings.kafka.partitions)
