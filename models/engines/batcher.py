"""Micro-batching: many awaiting callers, one worker thread, whatever waits goes together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class MicroBatcher(Generic[T, R]):
    """Calls `run(batch)` in one thread with at most `size` waiting jobs, oldest first.

    A batch that is not full waits `linger_s` for jobs that come just behind its first. `run`
    returns one result per job, in order; what it raises is raised to each caller of that batch. A
    caller that is cancelled while waiting drops out of the queue. The worker task lives on the
    event loop of the first `submit`.
    """

    def __init__(
        self, run: Callable[[Sequence[T]], Sequence[R]], size: int, linger_s: float = 0.0
    ) -> None:
        self._run = run
        self._size, self._linger_s = size, linger_s
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._some = asyncio.Event()  # whether the queue holds a job
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch")
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, job: T) -> R:
        """The result of one job, once its batch is done. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((job, result))
        self._some.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await result

    async def close(self) -> None:
        """Stop after the batch under way; callers still waiting are cancelled."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        while self._queue:
            self._queue.popleft()[1].cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        while True:
            batch = await self._next_batch()
            if batch:
                await self._answer(batch)

    async def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        await self._some.wait()
        if len(self._queue) < self._size:
            await asyncio.sleep(self._linger_s)
        batch = [self._queue.popleft() for _ in range(min(self._size, len(self._queue)))]
        if not self._queue:
            self._some.clear()
        return [(job, result) for job, result in batch if not result.done()]

    async def _answer(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._thread, self._run, [job for job, _ in batch])
        except asyncio.CancelledError:
            for _, result in batch:
                result.cancel()
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is belongs to the callers)
            self._fail(batch, error)
            return
        for (_, result), answer in zip(batch, answers, strict=True):
            if not result.done():
                result.set_result(answer)

    @staticmethod
    def _fail(batch: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
        for _, result in batch:
            if not result.done():
                result.set_exception(error)
