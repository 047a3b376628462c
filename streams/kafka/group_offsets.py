"""Answers about committed offsets that are none: aiokafka takes some for "nothing is committed".

While a coordinator loads its offsets, as after a broker's restart, it answers with an error and no
offsets. aiokafka looks for errors per partition only and would begin at the earliest record. There
is no public door: the answer is looked at before aiokafka does, once for all consumers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

_send = GroupCoordinator._send_req


async def _checked_send(self: GroupCoordinator, request: Any) -> Any:
    answer = await _send(self, request)
    if isinstance(request, OffsetFetchRequest):
        for error in map(for_code, _codes(answer)):
            if getattr(error, "retriable", False) and error is not UnknownTopicOrPartitionError:
                self.coordinator_dead()  # it is looked up again, and asked again
                raise error()
    return answer


def _codes(answer: Any) -> Iterator[int]:
    """All error codes of an answer; before version 2 there is none of the whole."""
    yield getattr(answer, "error_code", 0)
    for _, partitions in answer.topics:
        yield from (code for *_, code in partitions)


def retry_unanswered_offsets() -> None:
    """Let every consumer of this process ask again where it was not answered."""
    GroupCoordinator._send_req = _checked_send
