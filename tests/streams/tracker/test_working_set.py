"""A batch is worked only on partitions that are held as they were when it began."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from models.errors import PartitionLost
from models.settings import Settings, load_settings
from streams.partition_clock import PartitionClock
from tests.streams.tracker.arranging import event, rows, tracker


@pytest.fixture
def settings(tmp_path) -> Settings:  # type: ignore[no-untyped-def]
    return load_settings(data_dir=tmp_path, kafka={"partitions": 1, "bootstrap": "127.0.0.1:1"})


def test_a_partition_that_is_lost_or_acquired_anew_is_not_the_one_that_it_was(settings):
    role, _ = tracker(settings, CollectorRegistry())
    held = role.working_set
    before = held.held()
    held.check_unchanged({0}, before)
    held.drop(0)
    with pytest.raises(PartitionLost):
        held.check_unchanged({0}, before)
    held.begin(0, PartitionClock(), (0, 0))
    with pytest.raises(PartitionLost):
        held.check_unchanged({0}, before)


def test_a_partition_that_is_lost_while_its_batch_waits_for_its_turn_ends_no_role(settings):
    """It waits while what was passed over is read."""
    role, letters = tracker(settings, CollectorRegistry())

    async def scenario() -> None:
        async with role.intake.turns["interactions"]:
            batch = rows("interactions", event(0, "ann"))
            waiting = asyncio.create_task(role.intake.on_interactions(batch))
            await asyncio.sleep(0)
            role.working_set.drop(0)
        with pytest.raises(PartitionLost):
            await waiting

    asyncio.run(scenario())
    assert letters.sent == []
