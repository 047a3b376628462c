"""All that the owner of one partition writes to Kafka: in transactions that its next owner fences.

Every partition has a transactional id. Whoever takes a partition over starts a producer under it,
and from then on Kafka refuses whatever a former owner still sends, whenever it wakes up: changes
of state, lists, requests, dead letters and events sent on alike. A transaction holds state and
messages together, so either both are there or neither. What has been committed goes into the
local store. After any failure the partition is lost: its state is what the changelog says, and
whoever owns it reads that first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import aiokafka.producer.sender
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from models.errors import PartitionLost
from streams.codec import Headers
from streams.metrics import TrackerMetrics
from streams.tracker.local_store import LocalStore

log = logging.getLogger(__name__)

# Between two transactions of one producer Kafka answers "not yet" for a millisecond or two.
# aiokafka then waits 20 ms, which would make a list 20 ms later.
aiokafka.producer.sender.BACKOFF_OVERRIDE = 0.002
REFUSALS: Final = (
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
# A transaction costs about the same however much is in it. What is put within this time after the
# first change goes along: a list with the events that it knows.
LINGER_S: Final = 0.005
SMALL: Final = 64  # changes and messages; more are worth a transaction of their own
CLOSE_WITHIN_S: Final = 2.0  # for what is under way; it is done again by the next owner

Changes = dict[bytes, bytes | None]
Records = Iterable[tuple[bytes, bytes | None]]


class OutputsRefused(KafkaError):
    """Kafka refuses some messages for good; without them the transaction would pass."""

    def __init__(self, outputs: Sequence[Output], error: KafkaError) -> None:
        super().__init__(f"topic {outputs[0].topic}: {error!r}")
        self.outputs, self.error = outputs, error


class StateRefused(KafkaError):
    """Kafka refuses a change of state for good: it, or its topic, has other limits than before."""


class Output(NamedTuple):
    """A message to be sent together with the state that it goes with."""

    topic: str  # full name
    key: bytes | None
    value: bytes | None
    partition: int | None = None  # None: by the key
    headers: Headers = ()


class PartitionWriter:
    """Gathers changes and messages of one partition; one task commits whatever there is."""

    def __init__(
        self,
        partition: int,
        changelog: str,
        producer: AIOKafkaProducer,
        store: LocalStore,
        metrics: TrackerMetrics,
        on_lost: Callable[[PartitionWriter, BaseException], None],
    ) -> None:
        self.partition, self.store = partition, store
        self._changelog, self._producer = changelog, producer
        self._metrics, self._on_lost = metrics, on_lost
        self._changes: Changes = {}  # of the next transaction
        self._outputs: list[Output] = []
        self._under_way: Changes = {}  # of the one that is being committed
        self._put = self._committed = 0
        self._lost: PartitionLost | None = None
        self._committing: asyncio.Task[None] | None = None

    def get(self, key: bytes) -> bytes | None:
        """The value under `key` as last written, committed or not. Raises StoreDamaged."""
        for changes in (self._changes, self._under_way):
            if key in changes:
                return changes[key]
        return self.store.get(key)

    def write(self, records: Records) -> None:
        """Put changes of state into the next transaction; the last value of a key counts."""
        self._changes.update(records)
        self._note_put()

    def send(self, output: Output) -> None:
        """Put a message into the next transaction."""
        self._outputs.append(output)
        self._note_put()

    def _note_put(self) -> None:
        self._put += 1
        if self._lost is None:
            self._ensure_committing()

    async def committed(self) -> None:
        """Wait until all that was put before this call is committed. Raises PartitionLost."""
        due = self._put
        while self._committed < due:
            if self._lost is not None:
                raise self._lost
            await asyncio.wait({self._ensure_committing()})  # which `close` may cancel

    def _ensure_committing(self) -> asyncio.Task[None]:
        if self._committing is None or self._committing.done():
            self._committing = asyncio.get_running_loop().create_task(self._commit_all())
        return self._committing

    async def _commit_all(self) -> None:
        while await self._gathered():
            outputs, self._outputs = self._outputs, []
            self._under_way, self._changes = self._changes, {}
            upto = self._put
            try:
                next_offset = await self._transaction(self._under_way, outputs)
                self.store.apply(self._under_way, next_offset)
            except Exception as error:  # noqa: BLE001 (whatever it is, this did not happen)
                self.lose(error)
                return
            self._committed, self._under_way = upto, {}

    async def _gathered(self) -> bool:
        """Whether there is something to commit. For a little, more is waited for."""
        if 0 < len(self._changes) + len(self._outputs) < SMALL:
            await asyncio.sleep(LINGER_S)
        return bool(self._changes or self._outputs) and self._lost is None

    async def _transaction(self, changes: Changes, outputs: Sequence[Output]) -> int:
        """Commit both; returns the offset after the last one of the changelog."""
        await self._producer.begin_transaction()
        changed = [await self._change(key, value) for key, value in changes.items()]
        sent = [await self._send(output) for output in outputs]
        records, answers = await _answers(changed), await _answers(sent)
        _check_outputs(outputs, answers)
        _check_changes(changes, records)
        await self._producer.commit_transaction()
        size = sum(len(key) + len(value or b"") for key, value in changes.items())
        self._metrics.changelog_bytes.inc(size)
        self._metrics.transactions.inc()
        return max((record.offset + 1 for record in records), default=self._next_offset)

    @property
    def _next_offset(self) -> int:
        return self.store.position.next_offset

    async def _change(self, key: bytes, value: bytes | None) -> asyncio.Future[Any]:
        try:
            return await self._producer.send(self._changelog, value, key, partition=self.partition)
        except REFUSALS as error:
            raise _state_refused(key, value, error) from error

    async def _send(self, output: Output) -> asyncio.Future[object]:
        try:
            return await self._producer.send(
                output.topic,
                output.value,
                output.key,
                partition=output.partition,
                headers=list(output.headers),
            )
        except REFUSALS as error:
            raise OutputsRefused([output], error) from error

    def lose(self, error: BaseException) -> None:
        """Give the partition up: nothing more is written."""
        if self._lost is None:
            self._lost = PartitionLost(self.partition, error)
            self._on_lost(self, error)

    async def close(self) -> None:
        """End the producer and close the store; what is under way may or may not be committed."""
        self._lost = self._lost or PartitionLost(self.partition, None)
        if self._committing is not None:
            self._committing.cancel()
        await asyncio.gather(*filter(None, [self._committing]), return_exceptions=True)
        self.store.close()
        await stop_producer(self._producer)


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop it without waiting for a broker that does not answer: then that goes on beside us."""
    stopping = asyncio.get_running_loop().create_task(producer.stop())
    _stopping.add(stopping)
    stopping.add_done_callback(_note_stopped)
    await asyncio.wait({stopping}, timeout=CLOSE_WITHIN_S)


_stopping: Final[set[asyncio.Task[None]]] = set()


def _note_stopped(stopping: asyncio.Task[None]) -> None:
    _stopping.discard(stopping)
    if not stopping.cancelled() and stopping.exception() is not None:
        log.debug("a producer was not stopped in order: %r", stopping.exception())


async def _answers(sent: Iterable[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*sent, return_exceptions=True)


def _check(answers: Iterable[Any]) -> None:
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer


def _check_changes(changes: Changes, answers: Sequence[Any]) -> None:
    for (key, value), answer in zip(changes.items(), answers, strict=True):
        if isinstance(answer, REFUSALS):
            raise _state_refused(key, value, answer)
    _check(answers)


def _state_refused(key: bytes, value: bytes | None, error: KafkaError) -> StateRefused:
    size = len(value or b"")
    return StateRefused(f"Kafka refuses state of {size} bytes under key {key!r:.80} ({error!r})")


def _check_outputs(outputs: Sequence[Output], answers: Sequence[Any]) -> None:
    pairs = zip(outputs, answers, strict=True)
    refused = [output for output, answer in pairs if isinstance(answer, REFUSALS)]
    if refused:
        raise OutputsRefused(refused, next(a for a in answers if isinstance(a, REFUSALS)))
    _check(answers)
