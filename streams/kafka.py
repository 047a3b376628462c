"""Kafka clients as Palate wants them: nothing lost, nothing given up while the broker is away."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Iterable
from ssl import SSLContext
from typing import Any, Final, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context

from models.errors import SettingsError, StackError
from models.settings import KafkaSettings, Settings
from streams.codec import Record, Rejected, dead_letter

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 12 * 2**20  # a 10 MB message arrives, to become a dead letter
RETRY_S: Final = 0.5  # between tries while the broker is away
POLL_MS: Final = 500


class Client(Protocol):
    """What all aiokafka clients share."""

    async def start(self) -> None: ...


C = TypeVar("C", bound=Client)
T = TypeVar("T")


def client_options(settings: Settings) -> dict[str, Any]:
    """Options with which any aiokafka client connects.

    Raises SettingsError if a certificate or key cannot be read.
    """
    kafka = settings.kafka
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap,
        "security_protocol": kafka.security_protocol,
        "client_id": f"{kafka.prefix}palate",
    }
    if kafka.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL") and kafka.sasl_password:
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = kafka.sasl_password.get_secret_value()
    return options


def _ssl_context(kafka: KafkaSettings) -> SSLContext:
    try:
        return create_ssl_context(
            cafile=kafka.ssl_ca, certfile=kafka.ssl_cert, keyfile=kafka.ssl_key
        )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"kafka.ssl_ca={kafka.ssl_ca}, kafka.ssl_cert={kafka.ssl_cert} or "
            f"kafka.ssl_key={kafka.ssl_key} cannot be read as PEM: {error}"
        ) from error


def full_name(settings: Settings, topic: str) -> str:
    """The topic's name in Kafka; a name that carries the prefix already stays as it is."""
    prefix = settings.kafka.prefix
    return topic if prefix and topic.startswith(prefix) else settings.topic(topic)


def group_id(settings: Settings, role: str) -> str:
    """Consumer group of a role: `<prefix>palate-<role>`."""
    return f"{settings.kafka.prefix}palate-{role}"


def producer(settings: Settings, **options: Any) -> AIOKafkaProducer:
    """A producer, not started: acknowledged by all replicas, idempotent, murmur2 of the key."""
    return AIOKafkaProducer(
        **client_options(settings),
        **{
            "acks": "all",
            "enable_idempotence": True,
            "max_request_size": MAX_MESSAGE_BYTES,
            "linger_ms": 2,
            "max_batch_size": 128 * 1024,
        }
        | options,
    )


def consumer(
    settings: Settings, topics: Iterable[str], group: str | None, **options: Any
) -> AIOKafkaConsumer:
    """A consumer, not started: no auto commit, from the beginning where nothing is committed.

    `group` is the whole group id (see `group_id`), or None to read without one.
    """
    kafka = settings.kafka
    return AIOKafkaConsumer(
        *(full_name(settings, topic) for topic in topics),
        **client_options(settings),
        **{
            "group_id": group,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "session_timeout_ms": int(kafka.session_timeout_s * 1000),
            "heartbeat_interval_ms": int(kafka.heartbeat_s * 1000),
        }
        | options,
    )


async def partition_lags(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Records between the position and the end, for each assigned partition fetched so far."""
    lags = {}
    for place in consumer.assignment():
        end = consumer.highwater(place)
        if end is not None:
            lags[place] = max(0, end - await consumer.position(place))
    return lags


async def until_answered(what: str, call: Callable[[], Awaitable[T]]) -> T:
    """The result of `call`, made again for as long as the broker is away, which is said once.

    Raises KafkaError where another try would not help.
    """
    waited = False
    while True:
        try:
            result = await call()
        except (KafkaError, OSError) as error:
            if not _worth_another_try(error):
                raise
            if not waited:
                log.warning("%s: Kafka does not answer, trying again: %r", what, error)
            waited = True
            await asyncio.sleep(RETRY_S)
        else:
            if waited:
                log.info("%s: Kafka answers", what)
            return result


async def start_client(make: Callable[[], C], within_s: float | None = None) -> C:
    """A started client; waits for the broker for as long as it takes.

    With `within_s`, which is for commands, raises StackError if it takes longer.
    """

    async def start() -> C:
        client = make()
        try:
            await client.start()
        except BaseException:
            await _close(client)
            raise
        return client

    try:
        async with asyncio.timeout(within_s):
            return await until_answered("connecting", start)
    except TimeoutError as error:
        raise StackError(
            f"Kafka did not answer within {within_s} s; `palate up` starts it, KAFKA_BOOTSTRAP "
            "names another cluster"
        ) from error


async def _close(client: Any) -> None:
    """aiokafka's admin client is closed, the others are stopped."""
    await (client.close() if hasattr(client, "close") else client.stop())


def _worth_another_try(error: Exception) -> bool:
    return isinstance(error, OSError) or bool(getattr(error, "retriable", False))


async def deliver(
    producer: AIOKafkaProducer,
    topic: str,
    value: bytes | None,
    *,
    key: bytes | None,
    partition: int | None = None,
    headers: Iterable[tuple[str, bytes]] = (),
) -> None:
    """Send one record (`topic` is the full name) and await the broker's acknowledgement.

    Tries for as long as the broker is away, so it may be written twice but is never lost.
    Raises KafkaError only where another try would not help.
    """
    given = {"key": key, "partition": partition, "headers": list(headers)}
    await until_answered(
        f"sending to {topic}", lambda: producer.send_and_wait(topic, value, **given)
    )


async def dead_letter_send(
    producer: AIOKafkaProducer, settings: Settings, record: Record, rejected: Rejected
) -> None:
    """Publish the dead letter of `record` and await the broker's acknowledgement."""
    value, headers = dead_letter(record, rejected)
    topic = settings.topic("dead-letters")
    await deliver(producer, topic, value, key=record.key, headers=headers)


async def existing_partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    """All partitions of a topic (full name), as soon as it exists."""
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    announced = False
    try:
        while True:
            [found] = await until_answered(topic, lambda: admin.describe_topics([topic]))
            numbers = sorted(partition["partition"] for partition in found["partitions"])
            if numbers:
                return [TopicPartition(topic, number) for number in numbers]
            if not announced:
                log.warning("waiting for topic %s to exist", topic)
            announced = True
            await asyncio.sleep(RETRY_S)
    finally:
        await admin.close()


class LowWatermark:
    """Which offset may be committed while records are finished out of order.

    Pure; one per consumer. `committable` is the lowest unfinished offset of a partition, or the
    one after the highest begun if all are finished.
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

    def unfinished(self) -> int:
        """Records that are under way, over all partitions."""
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


class TopicFollower:
    """Reads all partitions of a topic from the beginning, without a group, and follows it.

    `on_record` is called in the order of each partition, also for tombstones (value None).
    """

    def __init__(
        self, settings: Settings, topic: str, on_record: Callable[[ConsumerRecord], None]
    ) -> None:
        self.settings = settings
        self.topic = full_name(settings, topic)
        self._on_record = on_record
        self._caught_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ends: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Begin to read; waits for the broker and for the topic to exist."""
        partitions = await existing_partitions(self.settings, self.topic)
        self._consumer = await start_client(
            lambda: consumer(self.settings, (), None, max_poll_records=2_000)
        )
        try:
            self._consumer.assign(partitions)
            await self._consumer.seek_to_beginning(*partitions)
            self._ends = await self._end_offsets(partitions)
        except BaseException:
            await self._consumer.stop()
            raise
        self._task = asyncio.create_task(self._follow(), name=f"follow {self.topic}")

    async def caught_up(self) -> None:
        """Return once every record that was there at `start` has been given to `on_record`.

        Raises what made following end, if it has.
        """
        assert self._task is not None, "caught_up before start"
        waiter = asyncio.create_task(self._caught_up.wait())
        await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if not self._caught_up.is_set():
            self._task.result()

    @property
    def not_ready(self) -> str | None:
        """None while caught up and following; else why not (for /readyz)."""
        if self._task is None:
            return f"{self.topic}: not started"
        if self._task.done():
            error = None if self._task.cancelled() else self._task.exception()
            return f"{self.topic}: no longer followed: {error!r}"
        return None if self._caught_up.is_set() else f"{self.topic}: reading from the beginning"

    async def failed(self) -> None:
        """Wait until following ends, and raise what ended it; for a role to end with."""
        assert self._task is not None, "failed before start"
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop reading; may be called twice."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.stop()

    async def _end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return await until_answered(
            f"reading {self.topic}", lambda: self._consumer.end_offsets(partitions)
        )

    async def _follow(self) -> None:
        failing = False
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=POLL_MS)
                for record in (r for records in batches.values() for r in records):
                    self._on_record(record)
                if not self._caught_up.is_set() and await self._at_ends():
                    self._caught_up.set()
                failing = False
            except KafkaError as error:
                if not _worth_another_try(error):
                    raise
                if not failing:
                    log.warning(
                        "topic %s: %r; reading goes on when Kafka answers", self.topic, error
                    )
                failing = True
                await asyncio.sleep(RETRY_S)

    async def _at_ends(self) -> bool:
        """By position, not by last record: the last offsets may be markers or compacted away."""
        for partition, end in self._ends.items():
            if await self._consumer.position(partition) < end:
                return False
        return True
