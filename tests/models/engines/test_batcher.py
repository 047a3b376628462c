from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from models.engines.batcher import MicroBatcher
from tests.patience import HANG_S


class Recorded:
    """Doubles numbers; remembers the batches. The first batch waits until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.batches.append(list(jobs))
        assert self.go.wait(HANG_S)
        if -1 in jobs:
            raise ValueError("minus one")
        return [job * 2 for job in jobs]


def test_what_waits_goes_together_oldest_first_up_to_the_size() -> None:
    run = Recorded()

    async def submit() -> list[int]:
        batcher: MicroBatcher[int, int] = MicroBatcher(run, 3)
        first = asyncio.create_task(batcher.submit(0))
        while not run.batches:
            await asyncio.sleep(0.001)
        rest = [asyncio.create_task(batcher.submit(n)) for n in range(1, 6)]
        await asyncio.sleep(0)
        run.go.set()
        answers = await asyncio.gather(first, *rest)
        await batcher.close()
        return answers

    assert asyncio.run(submit()) == [0, 2, 4, 6, 8, 10]
    assert run.batches == [[0], [1, 2, 3], [4, 5]]


def test_an_error_reaches_every_caller_of_its_batch_and_no_other() -> None:
    run = Recorded()
    run.go.set()

    async def submit() -> list[object]:
        batcher: MicroBatcher[int, int] = MicroBatcher(run, 2)
        calls = (batcher.submit(n) for n in (-1, 1, 2))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await batcher.close()
        return list(answers)

    first, second, third = asyncio.run(submit())
    assert isinstance(first, ValueError)
    assert isinstance(second, ValueError)
    assert third == 4


def test_a_caller_that_gave_up_is_left_out_of_the_batch() -> None:
    run = Recorded()

    async def submit() -> None:
        batcher: MicroBatcher[int, int] = MicroBatcher(run, 4)
        tasks = [asyncio.create_task(batcher.submit(n)) for n in (0,)]
        while not run.batches:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        run.go.set()
        assert await tasks[2] == 4
        await batcher.close()

    asyncio.run(submit())
    assert run.batches == [[0], [2]]


def test_closing_cancels_who_still_waits() -> None:
    run = Recorded()

    async def submit() -> None:
        batcher: MicroBatcher[int, int] = MicroBatcher(run, 1)
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(3)]
        while not run.batches:
            await asyncio.sleep(0.001)
        run.go.set()
        await batcher.close()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(a, asyncio.CancelledError) or a == 0 for a in answers)
        with pytest.raises(RuntimeError):
            await batcher.submit(9)

    asyncio.run(submit())


def test_a_batch_that_is_not_full_waits_for_what_comes_just_behind() -> None:
    run = Recorded()
    run.go.set()

    async def submit() -> list[int]:
        batcher: MicroBatcher[int, int] = MicroBatcher(run, 3, linger_s=0.2)
        tasks = [asyncio.create_task(batcher.submit(0))]
        for _ in range(5):  # the worker has seen the first job by now
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(batcher.submit(1)))
        answers = await asyncio.gather(*tasks)
        await batcher.close()
        return answers

    assert asyncio.run(submit()) == [0, 2]
    assert run.batches == [[0, 1]]


def test_closing_cancels_who_waits_for_others_to_come() -> None:
    run = Recorded()

    async def submit() -> None:
        batcher: MicroBatcher[int, int] = MicroBatcher(run, 2, linger_s=3600)
        task = asyncio.create_task(batcher.submit(0))
        for _ in range(5):
            await asyncio.sleep(0)
        await batcher.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(submit())
    assert run.batches == []
