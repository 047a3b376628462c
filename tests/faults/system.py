"""The system that faults are injected into: a broker, four roles, traffic, and all its switches.

Whoever calls `up` is the operator of a machine without a supervisor: nothing that has ended is
started again by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.stack import CHECKOUT, Role
from models.errors import PalateError, StackError
from tests.conftest import role_environment
from tests.faults.checker import Finding, Verdict
from tests.faults.flow import Flow, LoopThread
from tests.faults.mirror import Mirror
from tests.faults.proxy import Line, Proxy
from tests.faults.registry import Skipped
from tests.faults.stack import TRACKERS, LinedStack, stack_settings, topics
from tests.faults.traffic import Traffic
from tests.patience import HANG_S, Deadline, machine_clock
from tests.ports import free_ports

READY_WITHIN_S = 180.0
UP_TRIES = 3  # of an operator who sees a role end while it starts
DISK = "6g"
SPARE = 3 << 20  # bytes that a full disk still has


def quiet(_part: str, _what: str) -> None:
    """Nobody is listening to what starts."""


class System:
    """One stack in a folder of its own. Use as a context: it leaves nothing running behind."""

    def __init__(self, seed: int, rate: float = 60.0) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="palate-faults-"))
        self.findings: list[Finding] = []
        self.ended: list[str] = []  # roles that ended although nobody had ended them
        self.disk = self._mount(self.base / "data")
        names = [*(f"tracker-{n}" for n in range(TRACKERS)), "profiler", "indexer", "recorder"]
        ports = iter(free_ports(5 + TRACKERS + 2 * len(names)))
        self.settings = stack_settings(self.base, ports)
        lines = {name: (next(ports), next(ports)) for name in names}
        self.stack = LinedStack(self.settings, lines)
        self.loop = LoopThread()
        self.proxies = {name: Proxy(listens) for name, (listens, _) in lines.items()}
        self.traffic = Traffic(seed)
        kafka = self.settings.kafka
        self.flow = Flow(self.loop, kafka.bootstrap, kafka.prefix, self.traffic, rate)
        self.mirror = Mirror(kafka.bootstrap, topics(self.settings), set(self.traffic.users))
        self._down: set[str] = set()  # roles that a fault has ended
        self._suspended: dict[str, psutil.Process] = {}
        self._extra: list[subprocess.Popen[bytes]] = []
        self._patch = pytest.MonkeyPatch()

    # --- its life ---------------------------------------------------------------------------

    def __enter__(self) -> System:
        try:
            for name, value in self._variables().items():
                self._patch.setenv(name, value)
            for name, (_, proxied) in self.stack.lines.items():
                self.loop.call(self.proxies[name].start(proxied))
            self.up()
            self.flow.send(self.traffic.catalogue())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _variables(self) -> dict[str, str]:
        shift = self.base / "clock-shift"
        return {
            **role_environment(self.settings),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parent / "clock"),
            "FAULTS_CLOCK_SHIFT": str(shift),
            "FAULTS_BASE": str(self.base),
            "FAULTS_RUN": str(os.getpid()),
            "PALATE_CONFIG": os.devnull,
        }

    def close(self) -> None:
        """Stop everything that is ours, however it is, and give the disk back."""
        self.flow.stop()
        self.resume_all()
        for process in self._ours():
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(self._ours(), timeout=10)
        for child in self._extra:
            child.wait(10)
        for proxy in self.proxies.values():
            with contextlib.suppress(Exception):
                self.loop.call(proxy.stop(), 5)
        self.loop.stop()
        self._patch.undo()

    def remove(self) -> None:
        """Delete its folder."""
        if self.disk:
            subprocess.run(["umount", "--lazy", self.settings.data_dir], check=False)
        shutil.rmtree(self.base, ignore_errors=True)

    def keep(self, folder: Path) -> None:
        """Copy logs, run files and manifests there, to be read afterwards."""
        for name in ("logs", "log"):
            source = self.settings.data_dir / name
            if source.exists():
                shutil.copytree(source, folder / name, dirs_exist_ok=True)

    def _ours(self) -> list[psutil.Process]:
        """Processes that were started for this folder, by the mark in their environment."""
        return [p for p in psutil.process_iter() if self._is_ours(p)]

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        with contextlib.suppress(psutil.Error):
            return bool(process.environ().get("FAULTS_BASE") == str(self.base))
        return False

    # --- what an operator does --------------------------------------------------------------

    def up(self) -> None:
        """What `palate up` does, again if a role ends while it starts. Raises StackError."""
        for left in reversed(range(UP_TRIES)):
            self._note_ended()
            try:
                self.up_once()
                return
            except PalateError:
                if not left:
                    raise

    def up_once(self, within_s: float = READY_WITHIN_S) -> None:
        """One `palate up`."""
        self.stack.start_broker(quiet)
        for role in self.stack.roles:
            self.start(role.name)
        self.wait_ready(within_s)

    def start(self, name: str) -> None:
        """Start one role if it does not run; waits for nothing."""
        background = self.stack.background(self.role(name))
        if background.process() is None:
            background.start()
        self._down.discard(name)

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Raises StackError if a role ends, or is not ready for long."""
        deadline = Deadline(within_s)
        while reasons := self.unready():
            if deadline.over():
                raise StackError(f"not ready after {within_s:.0f} s: {reasons}")
            time.sleep(0.2)

    def unready(self) -> dict[str, str]:
        """Role → why it is not ready. Raises StackError if one does not run."""
        told = {role.name: self.stack.not_ready(role) for role in self.stack.roles}
        return {name: why for name, why in told.items() if why is not None}

    def down(self) -> None:
        """What `palate down` does."""
        names = [role.name for role in self.stack.roles]
        self.stack.stop(quiet)
        self._down |= set(names)

    def palate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command as an operator would; it is killed if it hangs."""
        command = [sys.executable, "-m", "deploy", *arguments]
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT
        )
        call_off = machine_clock.alarm(HANG_S, running.kill)
        try:
            told = running.communicate()
        finally:
            call_off()
            running.kill()  # also where the driver itself was interrupted
        return subprocess.CompletedProcess(command, running.returncode, *told)

    def _note_ended(self) -> None:
        for role in self.stack.roles:
            background = self.stack.background(role)
            started = background.pid_file.exists()
            if started and role.name not in self._down and background.process() is None:
                last = background.last_lines(1) or [""]
                self.ended.append(f"{role.name}: {last[0][-200:]}")

    # --- processes --------------------------------------------------------------------------

    def role(self, name: str) -> Role:
        """A role by name; also that of a worker which `palate up` does not start."""
        for role in self.stack.roles:
            if role.name == name:
                return role
        number = int(name.removeprefix("tracker-"))
        metrics = self.settings.metrics
        url = f"http://{metrics.host}:{metrics.tracker_port + number}"
        return Role(name, "streams.tracker", url, number)

    def process(self, name: str) -> psutil.Process | None:
        """The process of a role, or of the broker (kafka), if it runs."""
        if name == "kafka":
            assert self.stack.broker is not None
            pid = self.stack.broker.pid()
            return psutil.Process(pid) if pid else None
        return self.stack.background(self.role(name)).process()

    def kill(self, *names: str) -> None:
        """kill -9, all at once."""
        self._signal(signal.SIGKILL, *names)
        gone = [process for name in names if (process := self.process(name))]
        psutil.wait_procs(gone, timeout=10)

    def terminate(self, *names: str) -> None:
        """SIGTERM, all at once; waits for nothing."""
        self._signal(signal.SIGTERM, *names)

    def _signal(self, number: signal.Signals, *names: str) -> None:
        self._down |= set(names)
        for name in names:
            if process := self.process(name):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def suspend(self, name: str) -> None:
        """SIGSTOP: what a long pause of a virtual machine does."""
        if process := self.process(name):
            process.suspend()
            self._suspended[name] = process

    def resume(self, name: str) -> None:
        """SIGCONT."""
        if process := self._suspended.pop(name, None):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def resume_all(self) -> None:
        """Nobody stays asleep."""
        for name in list(self._suspended):
            self.resume(name)

    def spawn(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """A further process beside the stack's; ended with it at the latest."""
        log = (self.settings.data_dir / "logs" / "extra.log").open("ab")
        with log:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=CHECKOUT,
                start_new_session=True,
            )
        self._extra.append(child)
        return child

    # --- network, clock, disk ---------------------------------------------------------------

    def line(self, name: str, state: Line) -> None:
        """Cut or mend the line between a role and the broker."""

        async def switch() -> None:
            self.proxies[name].switch(state)

        self.loop.call(switch())

    def shift_clock(self, seconds: float) -> None:
        """What the wall clock of all roles is off by from now on."""
        (self.base / "clock-shift").write_text(str(seconds))

    def _mount(self, folder: Path) -> bool:
        """Put the data on a disk of its own, that can be made small; needs root."""
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
        with contextlib.suppress(OSError):
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        return False

    def fill_disk(self) -> None:
        """Leave next to no room. Raises Skipped if the disk is not ours to make small."""
        if not self.disk:
            raise Skipped("no disk of its own: mounting a tmpfs needs root")
        self._resize(str(shutil.disk_usage(self.settings.data_dir).used + SPARE))

    def empty_disk(self) -> None:
        """Room again."""
        if self.disk:
            self._resize(DISK)

    def _resize(self, size: str) -> None:
        command = ["mount", "-o", f"remount,size={size}", str(self.settings.data_dir)]
        subprocess.run(command, check=True, capture_output=True)

    # --- judging ----------------------------------------------------------------------------

    def require(
        self, held: object, promise: str, detail: str, verdict: Verdict = "wrong", count: int = 1
    ) -> None:
        """Note a promise of a fault that was not kept."""
        if not held:
            self.findings.append(Finding(verdict, promise, count, detail[-300:]))

    def waited(self, condition: Callable[[], object], within_s: float) -> bool:
        """Whether the condition came true in time, by the machine's own clock."""
        deadline = Deadline(within_s)
        while not deadline.over():
            if condition():
                return True
            time.sleep(0.2)
        return bool(condition())

    def log_of(self, name: str) -> str:
        """A role's log, all of it."""
        path = self.stack.logs / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""
