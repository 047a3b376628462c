"""The partitions of this worker: taken over in an order that no former owner can disturb.

    1. fence: start the partition's transactional producer; former owners write nothing from now on
    2. recover: read into the local store what the changelog holds beyond it
    3. tell the role, which reads from the state what is owed

A partition is lost when another worker has taken it over, when a transaction fails or when the
local store is damaged. As long as the assignment lasts it is then taken over again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced
from filelock import FileLock, Timeout

from models.errors import PartitionLost, StackError, StoreDamaged, TopicError
from models.settings import Settings
from streams.kafka.clients import RETRY_S, partition_producer, start_client, until_answered
from streams.kafka.read_at import Rereader
from streams.kafka.topics import changelog_topic
from streams.metrics import TrackerMetrics
from streams.service import until_stopped
from streams.tracker.local_store import LocalStore, refused_by_machine, remove
from streams.tracker.partition_writer import (
    Output,
    OutputsRefused,
    PartitionWriter,
    Records,
    StateRefused,
    stop_producer,
)

log = logging.getLogger(__name__)

_POLL_MS: Final = 500
_FENCED: Final = (ProducerFenced, InvalidProducerEpoch)
LEAVE_WITHIN_S: Final = 2.0  # to commit what is applied when partitions are revoked


class Partitions:
    """Keeps state and transactions of the partitions that are ours now."""

    def __init__(
        self,
        settings: Settings,
        worker: int,
        metrics: TrackerMetrics,
        on_acquired: Callable[[int], Awaitable[None]],
        on_lost: Callable[[int, BaseException], None],
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self._on_acquired, self._on_lost = on_acquired, on_lost
        self._changelog, self._topic_id = changelog_topic(settings), ""
        self._folder = settings.data_dir / "state" / f"worker-{worker}" / "histories"
        self._lock = FileLock(self._folder / "lock")
        self._reader = Rereader(settings)
        self._reading = asyncio.Lock()
        self._writers: dict[int, PartitionWriter] = {}
        self._ready: set[int] = set()  # those whose state the role has read
        self._taking_over = asyncio.Lock()  # one at a time: two would open one folder
        self._acquired = asyncio.Condition()  # notified whenever one is acquired or all are left
        self._assigned: frozenset[int] = frozenset()
        self._assignment = 0  # grows with every assignment, so that work for an old one ends
        self._left = asyncio.Event()  # set when the assignment has ended
        self._again: set[asyncio.Task[None]] = set()  # taking over what was lost
        self._closing: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None]

    # -- reading and writing ---------------------------------------------------------------

    def __contains__(self, partition: int) -> bool:
        return partition in self._writers

    @property
    def complete(self) -> bool:
        """Whether all that is assigned is acquired."""
        return self._assigned <= self._ready

    def get(self, partition: int, key: bytes) -> bytes | None:
        """The value under `key`, or None. Raises PartitionLost."""
        writer = self._writer(partition)
        try:
            return writer.get(key)
        except StoreDamaged as error:
            writer.lose(error)
            raise PartitionLost(partition, error) from error

    def scan(
        self, partition: int, prefix: bytes, after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) committed under `prefix` (behind `after`), in order of key.

        Raises PartitionLost.
        """
        writer = self._writer(partition)
        try:
            yield from writer.store.scan(prefix, after)
        except StoreDamaged as error:
            writer.lose(error)
            raise PartitionLost(partition, error) from error

    def write(self, partition: int, records: Records) -> None:
        """Put changes into the partition's next transaction. Raises PartitionLost."""
        self._writer(partition).write(records)

    def send(self, partition: int, output: Output) -> None:
        """Put a message into the partition's next transaction. Raises PartitionLost."""
        self._writer(partition).send(output)

    async def committed(self, partitions: Iterable[int]) -> None:
        """Wait until what was put before this call is committed. Raises PartitionLost.

        All are waited for, also where one of them is lost.
        """
        waiting = [self._writer(partition).committed() for partition in set(partitions)]
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    def _writer(self, partition: int) -> PartitionWriter:
        writer = self._writers.get(partition)
        if writer is None:
            raise PartitionLost(partition, None)
        return writer

    # -- taking over and leaving -----------------------------------------------------------

    def start(self, topic_id: str) -> None:
        """`topic_id`: Kafka's id of the changelog topic, by which local state is known as its.

        Raises StackError if another process has the folder of this worker.
        """
        self._topic_id = topic_id
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise StackError(
                f"{self._folder} is used by another tracker: every tracker needs a worker number "
                "of its own (PALATE_WORKER), or stop the other one"
            ) from error
        self._failed = asyncio.get_running_loop().create_future()

    async def acquire(self, partitions: Iterable[int]) -> None:
        """Take over exactly these partitions; returns when all are ours, or assigned anew.

        Raises StackError if local state cannot be kept, and what the role raises.
        """
        assignment = self._assignment + 1
        await self.leave()
        if assignment != self._assignment:
            return  # left, or assigned anew, while the former partitions were given back
        self._assigned, self._left = frozenset(partitions), asyncio.Event()
        for partition in sorted(self._assigned):
            await self._acquire(partition, assignment)

    async def _acquire(self, partition: int, assignment: int) -> None:
        async with self._taking_over:
            while assignment == self._assignment:
                writer = await self._take_over(partition, assignment)
                if writer is not None:
                    await self._begin(writer)
                    break
                await asyncio.sleep(RETRY_S)
        async with self._acquired:
            self._acquired.notify_all()

    async def _begin(self, writer: PartitionWriter) -> None:
        """No await stands between the last look at the assignment and this."""
        partition = writer.partition
        self._writers[partition] = writer
        with suppress(PartitionLost):  # then it is being taken over again already
            await self._on_acquired(partition)  # 3.
        if self._writers.get(partition) is writer:
            self._ready.add(partition)

    async def _take_over(self, partition: int, assignment: int) -> PartitionWriter | None:
        """None if that did not succeed this time, or the partition is assigned anew."""
        starting = start_client(lambda: partition_producer(self._settings, partition))
        fenced = await until_stopped(self._left, starting)  # 1.
        if fenced is None:
            return None
        store: LocalStore | None = None
        try:
            store = LocalStore.open(self._folder_of(partition), self._topic_id)
            await self._recover(store, partition, assignment)  # 2.
            if assignment == self._assignment:
                return PartitionWriter(
                    partition, self._changelog, fenced, store, self._metrics, self._lose
                )
        except StoreDamaged as error:
            self._heal(partition, error, store)
        except BaseException:
            await self._discard(fenced, store)
            raise
        await self._discard(fenced, store)
        return None

    @staticmethod
    async def _discard(fenced: AIOKafkaProducer, store: LocalStore | None) -> None:
        if store is not None:
            store.close()
        await stop_producer(fenced)

    def _heal(self, partition: int, error: StoreDamaged, store: LocalStore | None) -> None:
        """Remove local state that cannot be read or written; the changelog has all of it."""
        if store is not None:
            store.close()
        if refused_by_machine(error):
            log.warning("%s; it is tried again until the machine allows it", error)
        else:
            log.warning("%s; it is read from the changelog again", error)
            remove(self._folder_of(partition))

    def _folder_of(self, partition: int) -> Path:
        return self._folder / str(partition)

    async def _recover(self, store: LocalStore, partition: int, assignment: int) -> None:
        """Bring the store up to the end of the changelog. Raises StoreDamaged."""
        place, first = TopicPartition(self._changelog, partition), store.position.next_offset
        async with self._reading:
            reader = await self._reader.at(place, first)
            end = (await until_answered("changelog", lambda: reader.end_offsets([place])))[place]
            if first > end:
                raise StoreDamaged(
                    f"local state of partition {partition} is ahead of its changelog"
                )
            while store.position.next_offset < end and assignment == self._assignment:
                batch = await reader.getmany(place, timeout_ms=_POLL_MS)
                changes = {record.key: record.value for record in batch.get(place, ())}
                position = await reader.position(place)  # also behind marks of transactions
                if position > store.position.next_offset:
                    store.apply(changes, position)
        if end > first:
            log.info("partition %d: changelog read from %d to %d", partition, first, end)

    def lose(self, partition: int, error: BaseException) -> None:
        """Give a partition up without committing what was put; it is taken over again."""
        writer = self._writers.get(partition)
        if writer is not None:
            writer.lose(error)

    def _lose(self, writer: PartitionWriter, error: BaseException) -> None:
        """Called by the partition's writer."""
        partition = writer.partition
        if self._writers.get(partition) is not writer:
            return  # given back meanwhile
        del self._writers[partition]
        self._ready.discard(partition)
        reason = _reason(error)
        self._metrics.partitions_lost.labels(reason=reason).inc()
        defect = error if reason == "defect" else None
        log.warning("partition %d is given up (%s): %s", partition, reason, error, exc_info=defect)
        self._on_lost(partition, error)
        if isinstance(error, StateRefused):
            self.fail(TopicError(f"{error}; does the changelog take less than it did?"))
        closing = self._close(writer)
        again = self._acquire_again(writer, closing, error, self._assignment)
        task = asyncio.get_running_loop().create_task(again)
        self._again.add(task)
        task.add_done_callback(self._note_failure)

    def _close(self, writer: PartitionWriter) -> asyncio.Task[None]:
        """A task of its own, which nobody cancels: the folder is to be free afterwards."""
        closing = asyncio.get_running_loop().create_task(writer.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing

    async def _acquire_again(
        self,
        writer: PartitionWriter,
        closing: asyncio.Task[None],
        error: BaseException,
        assignment: int,
    ) -> None:
        await asyncio.shield(closing)
        if isinstance(error, StoreDamaged):
            self._heal(writer.partition, error, None)
        # Who was fenced may have been out of the group without knowing it. Taking the partition
        # back at once would fence its owner; after a session timeout we have heard of it.
        fenced = isinstance(error, _FENCED)
        await asyncio.sleep(self._settings.kafka.session_timeout_s if fenced else RETRY_S)
        await self._acquire(writer.partition, assignment)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        self._again.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the role with this error: trying again would not help."""
        if not self._failed.done():
            self._failed.set_exception(error)

    async def failed(self) -> None:
        """Wait for the first error that trying again does not mend, and raise it."""
        await asyncio.shield(self._failed)

    async def owned(self, partitions: Iterable[int]) -> None:
        """Wait until those of `partitions` that are still assigned are ours."""
        wanted = frozenset(partitions)
        async with self._acquired:
            await self._acquired.wait_for(lambda: (wanted & self._assigned) <= self._ready)

    async def leave(self) -> None:
        """Commit what is applied, as far as that goes quickly, and give all partitions back."""
        self._assignment += 1  # from here on nothing is registered for the old one
        self._left.set()
        self._assigned = frozenset()
        await self._end_taking_again()
        writers = list(self._writers.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_WITHIN_S):
                due = (writer.committed() for writer in writers)
                await asyncio.gather(*due, return_exceptions=True)
        for writer in writers:
            if self._writers.pop(writer.partition, None) is writer:
                self._close(writer)
        self._ready.clear()
        await self._end_taking_again()  # of what was lost while it was to be committed
        await asyncio.gather(*self._closing, return_exceptions=True)
        async with self._acquired:
            self._acquired.notify_all()

    async def _end_taking_again(self) -> None:
        for task in list(self._again):
            task.cancel()
        await asyncio.gather(*self._again, return_exceptions=True)

    async def stop(self) -> None:
        """As `leave`, for good."""
        await self.leave()
        await self._reader.stop()
        self._lock.release()


def _reason(error: BaseException) -> str:
    if isinstance(error, _FENCED):
        return "fenced"
    if isinstance(error, StoreDamaged):
        return "machine" if refused_by_machine(error) else "local state damaged"
    if isinstance(error, OutputsRefused):
        return "refused"
    if isinstance(error, StateRefused):
        return "state refused"
    return "kafka" if isinstance(error, KafkaError) else "defect"
