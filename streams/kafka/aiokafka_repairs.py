"""Two repairs of aiokafka, made once for all clients of a process, where it has no public door.

Committed offsets: while a coordinator loads them, as after a broker's restart, it answers with an
error and no offsets. aiokafka looks for errors per partition only, takes that for "nothing is
committed", and would begin at the earliest record. Here the answer is looked at before.

Header names that are not UTF-8: librdkafka lets producers send them. aiokafka fails with them while
it takes a fetched batch apart, in every reader and again at every start. Here bytes that are no
text are replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, SupportsIndex

from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

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


class _AnyText(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)


class _AnyTextInside(bytearray):
    def __getitem__(self, place: SupportsIndex | slice) -> Any:
        found = super().__getitem__(place)
        return _AnyText(found) if isinstance(place, slice) else found


class _PatientBatch(_DefaultRecordBatchPy):
    """aiokafka's reading of a batch in Python, with header names of any bytes."""

    def __iter__(self) -> _PatientBatch:
        super().__iter__()
        self._buffer = _AnyTextInside(self._buffer)  # type: ignore[has-type]
        return self


class _LenientBatch:
    """A batch that is read fast, and patiently from the first record on with which that fails."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch, self._data = batch, data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._batch:
                yield record
                read += 1
        except UnicodeDecodeError:
            yield from islice(_PatientBatch(self._data), read, None)


class _Records(_MemoryRecordsPy):
    def next_batch(self, *_: int) -> Any:
        data = self._next_slice
        batch = super().next_batch()
        return None if batch is None else _LenientBatch(batch, data)


def read_any_header_name() -> None:
    """Let every consumer of this process read batches so."""
    fetcher.MemoryRecords = _Records
