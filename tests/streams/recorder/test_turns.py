"""The recorder gives the event loop its turn by time: some records take long to judge."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from models.settings import load_settings
from streams.metrics import RecorderMetrics
from streams.recorder import role
from streams.recorder.role import SLICE_S, Recorder
from streams.recorder.rows import OK, Buffer, RecordStatus
from tests.streams.logged import ARecord

PLACE = TopicPartition("interactions", 0)
RECORDS = [ARecord("interactions", 0, offset, b"{}") for offset in range(400)]


class SlowJudge:
    """Takes its time, on a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds

    def verdict(self, topic: str, record: ARecord) -> RecordStatus:
        self.now += self.seconds
        return RecordStatus(OK, SimpleNamespace())


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder(load_settings(data_dir=tmp_path), RecorderMetrics(CollectorRegistry()))
    made._classifier = SlowJudge(SLICE_S / 4)
    made._buffers[PLACE] = Buffer("interactions", 0, start=0)
    monkeypatch.setattr(made, "_observe_lag", lambda *_: None)
    monkeypatch.setattr(role, "time", SimpleNamespace(monotonic=lambda: made._classifier.now))
    return made


async def turns_while(recorder: Recorder) -> list[float]:
    """When others had a turn, by the judge's clock."""
    taking = asyncio.create_task(recorder._take({PLACE: RECORDS}))
    turns = []
    while not taking.done():
        turns.append(recorder._classifier.now)
        await asyncio.sleep(0)
    await taking
    return [*turns, recorder._classifier.now]


def test_records_that_take_long_do_not_hold_the_loop(recorder: Recorder) -> None:
    turns = asyncio.run(turns_while(recorder))
    assert len(recorder._buffers[PLACE]) == len(RECORDS)
    waited = [later - earlier for earlier, later in pairwise(turns)]
    assert max(waited) <= SLICE_S + 2 * recorder._classifier.seconds


def test_quick_records_are_judged_many_at_a_time(recorder: Recorder) -> None:
    recorder._classifier.seconds = 0.0
    assert len(asyncio.run(turns_while(recorder))) < 10


def test_a_partition_that_is_revoked_meanwhile_is_left_to_its_next_owner(
    recorder: Recorder,
) -> None:
    buffer = recorder._buffers[PLACE]

    async def revoke() -> None:
        taking = asyncio.create_task(recorder._take({PLACE: RECORDS}))
        for _ in range(2):
            await asyncio.sleep(0)
        del recorder._buffers[PLACE]
        await taking

    asyncio.run(revoke())
    assert 0 < len(buffer) < len(RECORDS)
