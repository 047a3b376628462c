from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaError

from models.errors import PartitionLost, VectorIndexError
from streams.tracker import role
from streams.tracker.role import every

pytestmark = pytest.mark.anyio
ENOUGH = 50


class Spinning(Exception):
    """The work was done again and again while nobody else had a turn."""


class OwedForEver:
    """What is owed and cannot be done: it says so at once, and stays owed."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.calls, self.sooner = error, 0, asyncio.Event()

    async def __call__(self) -> None:
        self.calls += 1
        if self.calls > ENOUGH:
            raise Spinning
        self.sooner.set()
        if self.error is not None:
            raise self.error


async def turns_beside(work: OwedForEver, seconds: float) -> int:
    """How often another task has its turn until the work was done ENOUGH times."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    try:
        with pytest.raises(Spinning):
            await every(seconds, work, work.sooner)
    finally:
        beside.cancel()
    return turns


async def test_work_that_is_owed_at_once_again_leaves_a_turn_to_others():
    assert await turns_beside(OwedForEver(None), seconds=60.0) >= ENOUGH


@pytest.mark.parametrize(
    "error", [PartitionLost(3, None), KafkaError(), VectorIndexError("away")], ids=type
)
async def test_what_fails_is_not_tried_again_at_once_though_it_is_owed(error, monkeypatch):
    monkeypatch.setattr(role, "RETRY_S", 0.002)
    assert await turns_beside(OwedForEver(error), seconds=0.002) > 3 * ENOUGH
