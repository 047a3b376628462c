"""From kill -9 of the tracker to the moment when a new one has applied all there is."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack
from typing import Final

from deploy.bench.bench_broker import Ground, make_topics
from deploy.bench.catalogue import lay_out
from deploy.bench.live import TRACKER, Live, people, ready
from deploy.bench.load import Burst
from deploy.bench.progress import WorkerProgress
from deploy.bench.race import Workers
from deploy.bench.rows import Figure, below
from models.errors import StackError
from models.settings import Settings

AIM_S: Final = 20.0
PER_SECOND: Final = 200.0
USERS: Final = 1_000
HISTORY: Final = 60
BEFORE_S: Final = 3.0
WITHIN_S: Final = 120.0


def recovery(ground: Ground) -> list[Figure]:
    """200 events/s flow all the time; the tracker is killed and started again at once."""
    history = 5 if ground.quick else HISTORY
    settings = ground.settings()
    runs = asyncio.run(_kill_again_and_again(ground, settings, ground.runs, history))
    note = (
        f"{USERS} users of {history} events each, {PER_SECOND:.0f} events/s; of it up to "
        f"{settings.kafka.session_timeout_s:.0f} s until Kafka gives up the dead member"
    )
    return [below("kill -9 of the tracker to caught up", runs, AIM_S, "s", note)]


async def _kill_again_and_again(
    ground: Ground, settings: Settings, kills: int, history: int
) -> list[float]:
    await make_topics(settings)
    await lay_out(settings)
    with ExitStack() as running:
        worker = Worker(ground, settings, running)
        await ready(settings)
        async with Burst(settings) as burst:
            live = Live(settings, Workers([worker.process], [worker.progress]), burst)
            await live.preload(people(USERS), history)
            return [await _kill(live, worker) for _ in range(kills)]


class Worker:
    """The tracker of the moment."""

    def __init__(self, ground: Ground, settings: Settings, running: ExitStack) -> None:
        self._ground, self._settings, self._running = ground, settings, running
        self._starts = 0
        self.start()

    def start(self) -> None:
        """A new process, on the same state."""
        self._starts += 1
        path = self._settings.data_dir / f"progress-{self._starts}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.progress = WorkerProgress(path)
        process = self._ground.process(self._settings, TRACKER.module, str(path))
        self.process = self._running.enter_context(process)

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.process.pid, signal.SIGKILL)


async def _kill(live: Live, worker: Worker) -> float:
    """Seconds from the kill until every event sent so far is applied."""
    flowing = asyncio.create_task(_flow(live))
    try:
        await asyncio.sleep(BEFORE_S)
        killed_at = time.monotonic()
        worker.kill()
        worker.start()
        while worker.progress.read().position < live.sent:
            _ = worker.process.pid
            if flowing.done():
                flowing.result()
            if time.monotonic() > killed_at + WITHIN_S:
                raise StackError(f"not caught up {WITHIN_S:.0f} s after the kill")
            await asyncio.sleep(0.02)
        return time.monotonic() - killed_at
    finally:
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)


async def _flow(live: Live) -> None:
    """Events for ever, in small portions; `live.sent` counts those that the broker has."""
    portion = 20
    while True:
        begun = time.monotonic()
        sent = live.sent
        given = live.next_events(people(USERS), portion)
        live.sent = sent
        await live.burst.send(live.burst.pack(given))
        live.sent = sent + portion
        await asyncio.sleep(max(0.0, portion / PER_SECOND - (time.monotonic() - begun)))
