"""Partitions that are taken away while they are being opened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.subscription_state import SubscriptionState
from prometheus_client import CollectorRegistry

from models.settings import Settings, load_settings
from streams.metrics import RecorderMetrics
from streams.recorder.role import Recorder

PLACES = [TopicPartition("profiles", number) for number in (0, 1)]
During = Callable[[Recorder, SubscriptionState], Awaitable[None]]


@pytest.fixture
def settings(tmp_path) -> Settings:
    return load_settings(data_dir=tmp_path)


def opening(settings: Settings, during: During) -> Recorder:
    """A recorder that is about to open two partitions; `during` happens meanwhile."""
    recorder = Recorder(settings, RecorderMetrics(CollectorRegistry()))
    subscription = SubscriptionState()
    subscription.subscribe({"profiles"}, listener=None)
    subscription.assign_from_subscribed(set(PLACES))
    recorder._consumer = SimpleNamespace(seek=subscription.seek)

    async def ids() -> dict[str, str]:
        return {}

    async def ranges(places) -> tuple[dict, dict]:
        return dict.fromkeys(places, 0), dict.fromkeys(places, 5)

    async def opened(*_: object) -> object:
        await during(recorder, subscription)
        return SimpleNamespace(next=3)

    recorder._watch = SimpleNamespace(ids=ids)
    recorder._ranges, recorder._opened = ranges, opened
    return recorder


def test_partitions_that_went_to_another_recorder_are_left_alone(settings: Settings) -> None:
    async def moved(recorder: Recorder, subscription: SubscriptionState) -> None:
        await recorder.on_partitions_revoked(PLACES)
        subscription.begin_reassignment()
        subscription.assign_from_subscribed(set())
        await recorder.on_partitions_assigned([])

    async def scenario() -> Recorder:
        recorder = opening(settings, moved)
        await recorder.on_partitions_assigned(PLACES)
        await recorder._open_assigned()
        return recorder

    assert asyncio.run(scenario())._buffers == {}


def test_what_was_opened_between_two_assignments_is_opened_again(settings: Settings) -> None:
    async def revoked(recorder: Recorder, subscription: SubscriptionState) -> None:
        if recorder._assigned is not None:
            await recorder.on_partitions_revoked(PLACES)
            subscription.begin_reassignment()

    async def scenario() -> Recorder:
        recorder = opening(settings, revoked)
        await recorder.on_partitions_assigned(PLACES)
        await recorder._open_assigned()
        await recorder.on_partitions_assigned(PLACES[:1])
        return recorder

    assert asyncio.run(scenario())._buffers == {}
