"""Roles that end, hang, or lose their broker: real processes on a real broker, no model."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from deploy.broker import Broker
from deploy.processes import Background
from deploy.stack import Role, Stack, readiness, roles
from models.schemas import Interaction
from models.settings import Settings
from streams.health import EXIT_HUNG
from streams.kafka.clients import deliver, producer
from streams.kafka.topics import ensure_topics
from tests.conftest import MakeSettings, role_environment
from tests.integration.live import tracker_state, until
from tests.ports import free_ports

pytestmark = pytest.mark.model  # its roles load torch
NOW = 1_300_000_000_000
LIMITS = {"hung_s": 4.0, "away_s": 3.0, "drain_s": 10.0}
SESSION = {"partitions": 2, "session_timeout_s": 6.0, "heartbeat_s": 1.0}

# Each role with small models, and with one of its methods broken by the word in a file.
PROGRAM = """
import os, sys, time
from importlib import import_module
from pathlib import Path

role, module, owner, method, switch = sys.argv[1:]
main = import_module(f"streams.{role}.__main__")
owner = getattr(import_module(module), owner)
whole = getattr(owner, method)

def broken(self, *args, **kwargs):
    word = Path(switch).read_text() if Path(switch).exists() else ""
    if word == "raise once":
        Path(switch).unlink()
    if word.startswith("raise"):
        raise ValueError("poison")
    if word == "hang":
        time.sleep(600)
    return whole(self, *args, **kwargs)

setattr(owner, method, broken)
if role == "profiler":
    from models.fakes import HashEmbedder, MemoryReleaseStore
    from streams.profiler.release_loader import Sources
    from streams.profiler.profile_writer import Deps
    main.load_deps = lambda settings: Deps(
        encoder=None, embedder=HashEmbedder(), count_tokens=len,
        sources=Sources(MemoryReleaseStore(), lambda _: HashEmbedder()),
    )
if role == "indexer":
    from models.fakes import HashEmbedder
    main.load_embedder = lambda settings: HashEmbedder()
main.main()
"""
BROKEN = {
    "tracker": ("streams.tracker.intake", "TrackerIntake", "on_interactions"),
    "profiler": ("streams.profiler.worker", "ProfileWorker", "dispatch"),
    "indexer": ("streams.indexer.table_sync", "TableSync", "_next_batch"),
    "recorder": ("streams.recorder.role", "Recorder", "_poll"),
}


def measured(what: str) -> None:
    """For who reads the output (`pytest -s`): a slow machine must not fail a test."""
    sys.stderr.write(f"{what}\n")


class Process:
    """A role of PROGRAM in a process of its own."""

    def __init__(self, role: Role, settings: Settings, broken: tuple[str, str, str]) -> None:
        self.role, self.name = role, role.module.removeprefix("streams.")
        self.switch = settings.data_dir.parent / f"{self.name}.switch"
        self.log = settings.data_dir.parent / f"{self.name}.log"
        self.command = [
            *(sys.executable, "-c", PROGRAM, self.name, *broken),
            str(self.switch),
        ]
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                self.command,
                env={**os.environ, **role_environment(settings)},
                stdout=output,
                stderr=output,
            )

    def reason(self) -> str | None:
        """Why it is not ready; None if it is."""
        assert self.child.poll() is None, self.said()
        return readiness(self.role)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4_000:]

    def ended(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.child.poll()


@contextmanager
def running(
    settings: Settings, names: list[str], broken: dict[str, tuple[str, str, str]] = BROKEN
) -> Iterator[dict[str, Process]]:
    known = {role.module.removeprefix("streams."): role for role in roles(settings)}
    with ExitStack() as ending:
        made = {}
        for name in names:
            made[name] = Process(known[name], settings, broken[name])
            ending.callback(made[name].child.wait)
            ending.callback(made[name].child.kill)
        yield made


def until_each(made: dict[str, Process], holds: Callable[[Process], bool], what: str) -> None:
    """Wait until it holds for each role; print when it did."""
    began, waiting = time.monotonic(), dict(made)

    def look() -> bool:
        for name in [name for name, process in waiting.items() if holds(process)]:
            measured(f"{name}: {what} after {time.monotonic() - began:.1f} s")
            del waiting[name]
        return not waiting

    def missing() -> str:
        return "\n".join(f"{name} {what}; {one.said()}" for name, one in waiting.items())

    until(look, missing)


def ready(process: Process) -> bool:
    return process.reason() is None


def event(user: str, number: int) -> Interaction:
    return Interaction(
        event_id=f"{user}-{number}",
        user_id=user,
        item_id="tea",
        type="purchase",
        timestamp=NOW + number * 60_000,
    )


def send(settings: Settings, events: list[Interaction]) -> None:
    async def produce() -> None:
        async with producer(settings) as sender:
            for one in events:
                topic = settings.topic("interactions")
                await deliver(sender, topic, one.to_json(), key=one.user_id.encode())

    asyncio.run(produce())


def made_settings(make_settings: MakeSettings, **kafka: object) -> Settings:
    return make_settings(
        kafka={**SESSION, **kafka}, profile={"engine": "extractive"}, liveness=LIMITS
    )


def test_a_role_whose_work_raises_ends_and_says_why(
    kafka: str, make_settings: MakeSettings
) -> None:
    settings = made_settings(make_settings)
    with running(settings, list(BROKEN)) as made:
        until_each(made, ready, "ready")
        for process in made.values():
            process.switch.write_text("raise")
        send(settings, [event("anna", 1)])
        until_each(made, lambda one: one.ended() is not None, "ended")
        for process in made.values():
            assert process.ended() != 0, process.said()
            assert "ValueError: poison" in process.said()


def test_a_role_whose_loop_hangs_is_seen_to_hang_and_ends(
    kafka: str, make_settings: MakeSettings
) -> None:
    settings = made_settings(make_settings)
    with running(settings, list(BROKEN)) as made:
        until_each(made, ready, "ready")
        for process in made.values():
            process.switch.write_text("hang")
        send(settings, [event("anna", 1)])
        until_each(made, lambda one: one.ended() is not None, "ended")
        for process in made.values():
            assert process.ended() == EXIT_HUNG, process.said()
            assert "event loop has hung" in process.said()


def test_a_tracker_whose_app_crashes_while_partitions_are_assigned_ends(
    kafka: str, make_settings: MakeSettings
) -> None:
    settings = made_settings(make_settings)
    broken = {"tracker": ("faust.tables.manager", "TableManager", "on_rebalance")}
    switch = settings.data_dir.parent / "tracker.switch"
    switch.write_text("raise")
    with running(settings, ["tracker"], broken) as made:
        until_each(made, lambda one: one.ended() is not None, "ended")
        assert made["tracker"].ended() != 0
        assert "ValueError: poison" in made["tracker"].said()


def test_readiness_follows_the_broker_without_a_restart(
    needs_java: None, make_settings: MakeSettings
) -> None:
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"
    settings = made_settings(make_settings, bootstrap=address, embedded=True, broker_heap_mb=256)
    broker = Broker(settings)
    try:
        broker.start()
        with running(settings, list(BROKEN)) as made:
            until_each(made, ready, "ready")
            os.kill(broker.pid(), signal.SIGKILL)
            until_each(made, lambda one: bool(one.reason()), "not ready")
            broker.start()
            until_each(made, ready, "ready again")
            send(settings, [event("anna", 1)])
            until_each(made, lambda one: alive(one) and ready(one), "at work")
    finally:
        broker.stop()


def alive(process: Process) -> bool:
    return httpx.get(f"{process.role.url}/healthz").status_code == 200


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_ends_a_role_that_waits_for_its_broker(
    make_settings: MakeSettings, signals: int
) -> None:
    settings = made_settings(make_settings)  # nothing listens there
    with running(settings, list(BROKEN)) as made:
        until_each(made, lambda one: "trying again" in one.said(), "waiting for Kafka")
        for _ in range(signals):
            for process in made.values():
                process.child.send_signal(signal.SIGTERM)
        until_each(made, lambda one: one.ended() is not None, "ended")
        codes = {name: process.ended() for name, process in made.items()}
        assert set(codes.values()) <= {0, 1}, codes


class Watched(Stack):
    """Of the stack only the tracker, with a method that can be broken."""

    def __init__(self, settings: Settings, program: list[str]) -> None:
        super().__init__(settings)
        self.roles, self.broker, self._program = self.roles[:1], None, program

    def background(self, role: Role) -> Background:
        whole = super().background(role)
        return Background(
            whole.name, self._program, whole.environment, whole.pid_file, whole.log_file
        )


def test_a_crashed_tracker_is_started_again_and_no_event_is_lost(
    kafka: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = made_settings(make_settings)
    asyncio.run(ensure_topics(settings))
    for name, value in role_environment(settings).items():
        monkeypatch.setenv(name, value)
    switch = tmp_path / "switch"
    program = [sys.executable, "-c", PROGRAM, "tracker", *BROKEN["tracker"], str(switch)]
    stack = Watched(settings, program)
    background = stack.background(stack.roles[0])
    users = [f"u{number}" for number in range(20)]
    said: list[str] = []
    parts = stack._supervised()

    def watched(holds: Callable[[], bool]) -> bool:
        for part in parts:
            part.look(time.monotonic(), lambda _, what: said.append(what))
        return holds()

    def applied(count: int) -> bool:
        found = tracker_state(settings).users
        return {len(user.history) for user in found.values()} == {count} and len(found) == 20

    background.start()
    try:
        first = background.process()
        assert first is not None
        send(settings, [event(user, 1) for user in users])
        until(lambda: watched(lambda: applied(1)), lambda: "\n".join(background.last_lines()))
        switch.write_text("raise once")
        began = time.monotonic()
        send(settings, [event(user, 2) for user in users])
        until(lambda: watched(lambda: not first.is_running() or first.status() == "zombie"), "end")
        measured(f"gone after {time.monotonic() - began:.1f} s")
        until(lambda: watched(lambda: background.process() is not None), "a new process")
        measured(f"started again after {time.monotonic() - began:.1f} s")
        send(settings, [event(user, 3) for user in users])
        until(lambda: watched(lambda: applied(3)), lambda: "\n".join(background.last_lines()))
        measured(f"all events applied after {time.monotonic() - began:.1f} s")
    finally:
        background.stop(20.0)
    assert said[0].startswith("ended (")
    assert "again in 1 s" in said[0]
