"""An answer that is an error is no answer: the committed offsets are asked for again."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupAuthorizationFailedError
from aiokafka.protocol.commit import OffsetFetchResponse_v3
from aiokafka.structs import OffsetAndMetadata

from streams.kafka import aiokafka_repairs

PLACE = TopicPartition("t", 0)
TOLD = OffsetFetchResponse_v3(0, [("t", [(0, 7, "", 0)])], 0)
LOADING, UNAVAILABLE, MOVED, UNKNOWN_TOPIC, FORBIDDEN = 14, 15, 16, 3, 30


def committed(monkeypatch, *answers: OffsetFetchResponse_v3) -> dict:
    """What a consumer's coordinator says is committed when these are Kafka's answers."""
    aiokafka_repairs.retry_unanswered_offsets()
    left = list(answers)
    coordinator = object.__new__(GroupCoordinator)
    coordinator.group_id, coordinator._retry_backoff_ms = "g", 1

    async def known() -> None:
        return None

    async def send(*_: object) -> OffsetFetchResponse_v3:
        return left.pop(0)

    coordinator.ensure_coordinator_known = known
    coordinator.coordinator_dead = lambda: None
    monkeypatch.setattr(aiokafka_repairs, "_send", send)
    found = asyncio.run(coordinator.fetch_committed_offsets([PLACE]))
    assert left == []
    return found


@pytest.mark.parametrize("code", [LOADING, UNAVAILABLE, MOVED])
def test_what_is_no_answer_is_asked_again(monkeypatch, code: int) -> None:
    whole = OffsetFetchResponse_v3(0, [], code)
    one = OffsetFetchResponse_v3(0, [("t", [(0, -1, "", code)])], 0)
    assert committed(monkeypatch, whole, one, TOLD) == {PLACE: OffsetAndMetadata(7, "")}


def test_nothing_committed_is_an_answer(monkeypatch) -> None:
    assert committed(monkeypatch, OffsetFetchResponse_v3(0, [("t", [(0, -1, "", 0)])], 0)) == {}


def test_a_topic_that_is_not_there_is_not_waited_for(monkeypatch) -> None:
    unknown = OffsetFetchResponse_v3(0, [("t", [(0, -1, "", UNKNOWN_TOPIC)])], 0)
    assert committed(monkeypatch, unknown) == {}


def test_what_is_forbidden_is_said(monkeypatch) -> None:
    with pytest.raises(GroupAuthorizationFailedError):
        committed(monkeypatch, OffsetFetchResponse_v3(0, [("t", [(0, -1, "", FORBIDDEN)])], 0))
