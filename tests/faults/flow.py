"""A producer that sends traffic until it is told to pause, and writes the ledger.

It runs in an event loop in a thread of its own, so that whatever a fault does to the system, events
go on flowing. It uses aiokafka as it comes, and nothing of Palate.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.faults.ledger import Entry, Ledger
from tests.faults.traffic import Outgoing, Traffic

T = TypeVar("T")
TICK_S = 0.1
IN_FLIGHT = 600  # while the broker is away, no more than this is waiting
BURST = 400  # events at once
REQUEST_MS = 10_000
GIVE_UP_S = 600.0  # a broker that is away for longer is a finding of its own


class LoopThread:
    """An event loop in a thread; `call` runs a coroutine there and waits for it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], within_s: float = GIVE_UP_S) -> T:
        """The coroutine's result."""
        running = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return running.result(within_s)
        except BaseException:
            running.cancel()
            raise

    def stop(self) -> None:
        """End the loop and the thread."""
        with contextlib.suppress(Exception):
            self.call(self._cancel_all(), 10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=5) if others else None


class Flow:
    """`rate` events a second, and now and then a burst."""

    def __init__(
        self, loop: LoopThread, bootstrap: str, prefix: str, traffic: Traffic, rate: float
    ) -> None:
        self.ledger = Ledger()
        self._loop, self._bootstrap, self._prefix = loop, bootstrap, prefix
        self._traffic, self._per_tick = traffic, max(1, round(rate * TICK_S))
        self._producer: AIOKafkaProducer | None = None
        self._renewing: asyncio.Lock | None = None
        self._running = self._started_once = False
        self._pending: set[asyncio.Task[None]] = set()
        self._chance = random.Random(rate)

    def start(self) -> None:
        """Let events flow."""
        self._running = True
        if not self._started_once:
            self._started_once = True
            asyncio.run_coroutine_threadsafe(self._run(), self._loop.loop)

    def pause(self) -> None:
        """Send nothing new; returns when all that was sent is acknowledged."""
        self._running = False
        self._loop.call(self._drained())

    def stop(self) -> None:
        """For good; waits for nothing."""
        self._running = False
        with contextlib.suppress(Exception):
            self._loop.call(self._close(), 10)

    def send(self, records: Iterable[Outgoing]) -> None:
        """Send these; returns when they are acknowledged."""
        self._loop.call(self._send_all(list(records)))

    async def _run(self) -> None:
        while True:
            size = BURST if self._chance.random() < 1 / 120 else self._per_tick
            if self._running and len(self._pending) < IN_FLIGHT:
                for _ in range(size):
                    self._track(self._traffic.next())
            await asyncio.sleep(TICK_S)

    def _track(self, record: Outgoing) -> None:
        task = asyncio.ensure_future(self._deliver(record))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _drained(self) -> None:
        while self._pending:
            await asyncio.sleep(0.02)

    async def _send_all(self, records: list[Outgoing]) -> None:
        await asyncio.gather(*(self._deliver(record) for record in records))

    async def _deliver(self, record: Outgoing) -> None:
        """Send it again, as it is, until Kafka has it."""
        self.ledger.tried()
        while True:
            producer = self._producer or await self._renewed(None)
            try:
                sent = await producer.send_and_wait(
                    self._prefix + record.topic, record.value, record.key
                )
            except (KafkaError, OSError, AssertionError):
                await asyncio.sleep(0.3)
                await self._renewed(producer)
            else:
                self.ledger.acknowledged(
                    Entry(record.topic, sent.partition, sent.offset, *record[1:])
                )
                return

    async def _renewed(self, failed: AIOKafkaProducer | None) -> AIOKafkaProducer:
        """A producer that has not failed: a timed-out idempotent one may not go on."""
        self._renewing = self._renewing or asyncio.Lock()
        async with self._renewing:
            if self._producer is failed:
                await self._close()
                self._producer = await self._started()
            assert self._producer is not None
            return self._producer

    async def _started(self) -> AIOKafkaProducer:
        while True:
            made = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks="all",
                enable_idempotence=True,
                request_timeout_ms=REQUEST_MS,
                linger_ms=5,
            )
            try:
                await made.start()
                return made
            except (KafkaError, OSError):
                await made.stop()
                await asyncio.sleep(0.5)

    async def _close(self) -> None:
        closing, self._producer = self._producer, None
        if closing:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(closing.stop(), 3)
