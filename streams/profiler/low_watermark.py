"""Which offset may be committed while records are finished out of order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from aiokafka import TopicPartition


class LowWatermark:
    """Pure bookkeeping; one per consumer, used from one task.

    `committable` is the lowest unfinished offset of a partition, or the one after the highest
    begun if all are finished.
    """

    def __init__(self) -> None:
        self._unfinished: dict[TopicPartition, set[int]] = {}
        self._lowest: dict[TopicPartition, list[int]] = {}  # heaps; finished ones leave lazily
        self._next: dict[TopicPartition, int] = {}

    def start(self, partition: TopicPartition, offset: int) -> None:
        """Work on this record begins; to begin it again makes it unfinished again."""
        unfinished = self._unfinished.setdefault(partition, set())
        if offset not in unfinished:
            unfinished.add(offset)
            heapq.heappush(self._lowest.setdefault(partition, []), offset)
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)

    def done(self, partition: TopicPartition, offset: int) -> None:
        """The record's effect is durable. Nothing if it is unknown, as after `forget`."""
        self._unfinished.get(partition, set()).discard(offset)

    def committable(self) -> dict[TopicPartition, int]:
        """Per partition, the offset at which a restart must begin."""
        return {partition: self._watermark(partition) for partition in self._next}

    def unfinished(self, partition: TopicPartition | None = None) -> int:
        """Records that are under way, of one partition or over all."""
        if partition is not None:
            return len(self._unfinished.get(partition, ()))
        return sum(map(len, self._unfinished.values()))

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions belong to another consumer now."""
        for partition in partitions:
            for kept in (self._unfinished, self._lowest, self._next):
                kept.pop(partition, None)

    def _watermark(self, partition: TopicPartition) -> int:
        heap, unfinished = self._lowest[partition], self._unfinished[partition]
        while heap and heap[0] not in unfinished:
            heapq.heappop(heap)
        return heap[0] if heap else self._next[partition]
