"""A delivered batch is worked until what it does is committed. What a topic's work does with one:

    1. apply it to the states (no await between reading and writing one)
    2. put the changes, dead letters and events sent on into one transaction per partition
    3. wait until it is committed; then the local store has it too
    4. acknowledge the batch, so that its offsets may be committed

If a partition is lost on the way, none of that has happened there: what is left of the batch is
worked again when the partition is ours again, or by its new owner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from models.errors import PartitionLost
from streams.tracker.assignment import Assignment
from streams.tracker.partition_takeover import Partitions
from streams.tracker.readiness import BatchTimes
from streams.tracker.runtime import Batch, DeliveredRecord, FaustRuntime

log = logging.getLogger(__name__)

BatchWork = Callable[[list[DeliveredRecord]], Awaitable[None]]


class Delivery:
    """Takes batches from the runtime."""

    def __init__(
        self,
        runtime: FaustRuntime,
        partitions: Partitions,
        assignment: Assignment,
        times: BatchTimes,
    ) -> None:
        self._runtime, self._partitions = runtime, partitions
        self._assignment, self._times = assignment, times

    async def take(self, topic: str, work: BatchWork, batch: Batch) -> None:
        """Work a batch of a topic and acknowledge it."""
        self._times.begin(topic)
        try:
            done = await self._guarded(work, batch)
        finally:
            self._times.end(topic)
        done.acknowledge()  # 4.

    async def _guarded(self, work: BatchWork, batch: Batch) -> Batch:
        """Work a batch; returns what of it is done.

        An exception that left an agent would acknowledge its batch: stop the worker instead.
        """
        try:
            return await self._worked(work, batch)
        except Exception as error:  # noqa: BLE001 (whatever it is, the worker ends with it)
            await self._runtime.crash(error)
            await asyncio.Event().wait()
            return Batch(())

    async def _worked(self, work: BatchWork, batch: Batch) -> Batch:
        while batch:
            await self._partitions.owned(batch.partitions)
            # Not all is ours when partitions were given back, at the end or for a new assignment.
            batch = batch.part(self._assignment.covers)
            try:
                await work(batch.records())
                # Also what an earlier try has put, before another partition of it was lost.
                await self._partitions.committed(batch.partitions)
            except PartitionLost as lost:
                log.info("a batch is worked again: %s", lost)
            except BaseException as error:
                for partition in batch.partitions:
                    self._partitions.lose(partition, error)  # what is half done is not committed
                raise
            else:
                break
        return batch
