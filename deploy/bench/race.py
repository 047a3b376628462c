"""One run of one contestant: start it, warm it up, append a burst, time until all is done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from deploy.bench.bench_broker import COUNTS, Ground, Process, make_topics
from deploy.bench.load import Burst, events
from deploy.bench.progress import WorkerProgress
from models.errors import StackError
from models.settings import Settings

USERS: Final = 1_000
WARM_UP: Final = 2_000
ROUND: Final = 40  # events that show whether every worker has its partitions
ROUND_S: Final = 3.0
START_WITHIN_S: Final = 120.0
WITHIN_S: Final = 300.0
POLL_S: Final = 0.01
LOOK_S: Final = 0.5  # between looks whether the processes live


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program that reads topic interactions and reports to a progress file."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    workers: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    note: str = ""


class RaceResult(NamedTuple):
    """One run."""

    per_second: float
    cpu_us: float  # processor time of all workers per event; hardly depends on other load


class Workers:
    """The processes of one contestant and what they have done together."""

    def __init__(self, processes: Sequence[Process], progress: Sequence[WorkerProgress]) -> None:
        self._processes, self._progress = processes, progress

    def counts(self) -> list[int]:
        """Records done by each since its start, repeated ones included."""
        return [one.read().records for one in self._progress]

    def last_ns(self) -> int:
        """When the last record so far was done (monotonic)."""
        return max(one.read().at_ns for one in self._progress)

    async def until(self, records: int, within_s: float = WITHIN_S) -> None:
        """Return once `records` are done. StackError if a process ends or time is up."""
        if not await self.reach(records, within_s):
            raise StackError(f"{sum(self.counts())} of {records} records after {within_s:.0f} s")

    async def reach(self, records: int, within_s: float) -> bool:
        """Whether `records` are done within so many seconds."""
        deadline = time.monotonic() + within_s
        look_at = time.monotonic() + LOOK_S
        while sum(self.counts()) < records:
            if time.monotonic() > look_at:
                self.cpu_s()  # raises if a process has ended
                look_at += LOOK_S
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    def cpu_s(self) -> float:
        """Processor seconds of all processes since their start."""
        return sum(process.cpu_s() for process in self._processes)


async def race(
    ground: Ground, contestant: Contestant, count: int, items: Sequence[str], users: int = USERS
) -> RaceResult:
    """Speed over a burst of `count`, from its first byte sent to the last event done."""
    settings = ground.settings(**contestant.settings)
    await make_topics(settings, {COUNTS: settings.kafka.partitions})
    with ExitStack() as running:
        workers = start(ground, settings, contestant, running)
        async with Burst(settings) as burst:
            warmed = await warm_up(workers, burst, items, users)
            packed = burst.pack(events(count, users, items, first=warmed))
            done, used = sum(workers.counts()), workers.cpu_s()
            begun_at = time.monotonic_ns()
            await burst.send(packed)
            await workers.until(done + count)
            took_s = (workers.last_ns() - begun_at) / 1e9
            return RaceResult(count / took_s, (workers.cpu_s() - used) / count * 1e6)


def start(
    ground: Ground, settings: Settings, contestant: Contestant, running: ExitStack
) -> Workers:
    """Start the contestant's processes; `running` ends them."""
    processes, progress = [], []
    for worker in range(contestant.workers):
        path = settings.data_dir / f"progress-{worker}"
        path.parent.mkdir(parents=True, exist_ok=True)
        progress.append(WorkerProgress(path))
        arguments = (str(path), *contestant.arguments)
        process = ground.process(settings, contestant.module, *arguments, worker=worker)
        processes.append(running.enter_context(process))
    return Workers(processes, progress)


async def warm_up(workers: Workers, burst: Burst, items: Sequence[str], users: int) -> int:
    """Small rounds until every worker takes its share, then a larger one; how many were sent."""
    sent, deadline = 0, time.monotonic() + START_WITHIN_S
    while True:
        before = workers.counts()
        await burst.send(burst.pack(events(ROUND, users, items, first=sent)))
        sent += ROUND
        complete = await workers.reach(sum(before) + ROUND, ROUND_S)
        shares = [now - then for now, then in zip(workers.counts(), before, strict=True)]
        if complete and min(shares) > 0 and sum(shares) == ROUND:
            break
        if time.monotonic() > deadline:
            raise StackError(f"the workers did not share the partitions: {shares}")
    done = sum(workers.counts())
    await burst.send(burst.pack(events(WARM_UP, users, items, first=sent)))
    await workers.until(done + WARM_UP)
    return sent + WARM_UP
