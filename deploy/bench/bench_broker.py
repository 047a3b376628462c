"""Where benchmarks run: a broker of their own in a temporary folder, and processes on it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.broker import Broker, free_port
from deploy.processes import Background
from models.errors import StackError
from models.settings import Settings, load_settings
from streams.kafka.clients import client_options, start_client
from streams.kafka.topics import ensure_topics

CHECKOUT: Final = Path(__file__).resolve().parents[2]
COUNTS: Final = "counts"  # where contestants send their one message
START_WITHIN_S: Final = 180.0


@dataclass(frozen=True, slots=True)
class Ground:
    """A running broker, and what a benchmark may know about how long to take."""

    folder: Path
    usual: Settings
    bootstrap: str
    quick: bool
    runs: int = 1  # of each measurement that takes turns

    def settings(self, **overrides: Any) -> Settings:
        """Settings with topics, data_dir and ports of their own."""
        name = f"b{uuid.uuid4().hex[:8]}"
        roles = ("tracker", "profiler", "recorder", "indexer")
        kafka = {"bootstrap": self.bootstrap, "embedded": False, "prefix": f"{name}-"}
        return load_settings(
            **{
                "data_dir": self.folder / name,
                "models_dir": self.usual.models_dir.absolute(),
                "metrics": {f"{role}_port": free_port() for role in roles},
                **overrides,
                "kafka": {**kafka, **overrides.get("kafka", {})},
            }
        )

    def process(self, settings: Settings, module: str, *arguments: str, worker: int = 0) -> Process:
        """`python -m module arguments` with these settings, not started."""
        name = f"{module.rpartition('.')[2]}-{worker}-{uuid.uuid4().hex[:4]}"
        background = Background(
            name=name,
            command=[sys.executable, "-m", module, *arguments],
            environment={**environment(settings), "PALATE_WORKER": str(worker)},
            pid_file=settings.data_dir / "run" / f"{name}.json",
            log_file=settings.data_dir / "logs" / f"{name}.log",
        )
        return Process(background)


@dataclass(frozen=True, slots=True)
class Process:
    """A contestant or role; killed, not drained, when its block ends."""

    background: Background

    def __enter__(self) -> Process:
        self.background.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.background.stop(grace_s=10.0)

    @property
    def pid(self) -> int:
        """Process id. Raises StackError with the end of its log if it has ended."""
        found = self.background.process()
        if found is None:
            lines = "\n".join(f"    {line}" for line in self.background.last_lines())
            raise StackError(f"{self.background.name} has ended; the end of its log:\n{lines}")
        return int(found.pid)

    def cpu_s(self) -> float:
        """Processor seconds since its start. Raises StackError as `pid` does."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def wait(self, condition: Callable[[], bool], within_s: float = START_WITHIN_S) -> None:
        """Return once `condition` holds. Raises StackError if the process ends or time is up."""
        deadline = time.monotonic() + within_s
        while not condition():
            _ = self.pid
            if time.monotonic() > deadline:
                raise StackError(
                    f"{self.background.name}: not within {within_s:.0f} s; see "
                    f"{self.background.log_file}"
                )
            time.sleep(0.02)


@contextmanager
def ground(*, quick: bool, runs: int = 3) -> Iterator[Ground]:
    """A broker that has nothing else to do; all is removed afterwards."""
    usual = load_settings()
    folder = Path(tempfile.mkdtemp(prefix="palate-bench-"))
    bootstrap = f"127.0.0.1:{free_port()}"
    broker = Broker(
        load_settings(
            data_dir=folder,
            kafka={
                "bootstrap": bootstrap,
                "embedded": True,
                "broker_jars": usual.kafka.broker_jars,
            },
        )
    )
    try:
        broker.start()
        yield Ground(folder, usual, bootstrap, quick, 1 if quick else runs)
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


def environment(settings: Settings) -> dict[str, str]:
    """Variables with which another process reads exactly these settings (which hold no secret)."""
    variables = {
        f"PALATE_{name.upper()}": (
            value.model_dump_json(exclude_none=True)
            if hasattr(value, "model_dump_json")
            else str(value)
        )
        for name, value in ((name, getattr(settings, name)) for name in type(settings).model_fields)
    }
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    return {**variables, "PYTHONPATH": path, "PALATE_CONFIG": os.devnull}


@contextmanager
def exported(settings: Settings) -> Iterator[None]:
    """This process's environment says `settings`, for what starts roles by itself."""
    before = dict(os.environ)
    os.environ.update(environment(settings))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def make_topics(settings: Settings, extra: Mapping[str, int] | None = None) -> None:
    """Palate's topics, and others by name and partition count."""
    await ensure_topics(settings)
    wanted = [NewTopic(settings.topic(name), count, 1) for name, count in (extra or {}).items()]
    if wanted:
        admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
        try:
            await admin.create_topics(wanted)
        finally:
            await admin.close()
