"""Kafka clients as Palate wants them: nothing lost, nothing given up while the broker is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerClosed
from aiokafka.helpers import create_ssl_context

from models.errors import SettingsError
from models.settings import KafkaSettings, Settings
from streams.codec import Record, Rejected
from streams.dead_letters import dead_letter
from streams.kafka.aiokafka_repairs import read_any_header_name, retry_unanswered_offsets

if TYPE_CHECKING:
    from streams.metrics import RoleMetrics

log = logging.getLogger(__name__)

read_any_header_name()
retry_unanswered_offsets()

MARKERS_MS: Final = 100  # for a fetch that brings no record
RETRY_S: Final = 0.5  # between tries while the broker is away


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


def group_id(settings: Settings, role: str) -> str:
    """Consumer group of a role: `<prefix>palate-<role>`."""
    return f"{settings.kafka.prefix}palate-{role}"


def transactional_id(settings: Settings, partition: int) -> str:
    """Under which the tracker that owns a partition writes; Kafka fences former owners by it."""
    return f"{group_id(settings, 'tracker')}-{partition}"


def producer(settings: Settings, **options: Any) -> AIOKafkaProducer:
    """A producer, not started: acknowledged by all replicas, idempotent, murmur2 of the key."""
    return AIOKafkaProducer(
        **client_options(settings),
        **{
            "acks": "all",
            "enable_idempotence": True,
            "max_request_size": settings.kafka.max_message_bytes,
            "linger_ms": 2,
            "max_batch_size": 128 * 1024,
        }
        | options,
    )


def partition_producer(settings: Settings, partition: int) -> AIOKafkaProducer:
    """The transactional producer of a partition's owner; starting it fences the owners before."""
    return producer(
        settings,
        transactional_id=transactional_id(settings, partition),
        transaction_timeout_ms=int(settings.kafka.transaction_timeout_s * 1000),
        linger_ms=0,  # a transaction is a batch
    )


def consumer(
    settings: Settings, topics: Iterable[str], group: str | None, **options: Any
) -> AIOKafkaConsumer:
    """A consumer, not started: no auto commit, from the beginning where nothing is committed.

    It sees nothing of a transaction that was aborted, or is open still (its ends are those of
    what is committed). `topics` are without the prefix.
    `group` is the whole group id (see `group_id`), or None to read without one.
    """
    kafka = settings.kafka
    return AIOKafkaConsumer(
        *(settings.topic(topic) for topic in topics),
        **client_options(settings)
        | {
            "group_id": group,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
            "session_timeout_ms": int(kafka.session_timeout_s * 1000),
            "heartbeat_interval_ms": int(kafka.heartbeat_s * 1000),
        }
        | options,
    )


def readable_end(consumer: AIOKafkaConsumer, place: TopicPartition) -> int | None:
    """The offset up to which there is something to read, as of the last fetch.

    None before it, and if the partition is not (any longer) this consumer's.

    It lies before an open transaction. What is between the last record and it may hold no
    record: transactions leave markers, and aborted ones records that nobody sees.
    """
    try:
        end = consumer.last_stable_offset(place)
    except AssertionError:  # it is another consumer's by now
        return None
    return None if end is None or end < 0 else end


class Stretch(NamedTuple):
    """Offsets of a partition, `end` excluded."""

    first: int
    end: int


async def records_in(
    reader: AIOKafkaConsumer, stretches: Mapping[TopicPartition, Stretch]
) -> dict[TopicPartition, int]:
    """How many records a reader without a group finds in each stretch.

    There are fewer than offsets where transactions have left their markers.
    """
    reader.assign(list(stretches))
    for place, stretch in stretches.items():
        reader.seek(place, stretch.first)
    found = dict.fromkeys(stretches, 0)
    left = set(stretches)
    while left:
        for place, records in (await reader.getmany(*left, timeout_ms=MARKERS_MS)).items():
            found[place] += sum(record.offset < stretches[place].end for record in records)
        left = {at for at in left if await reader.position(at) < stretches[at].end}
    return found


async def has_committed(settings: Settings, group: str, place: TopicPartition) -> bool:
    """Whether a group has ever read in a partition; waits for the broker."""
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    try:
        committed = await until_answered(
            f"offsets of {group}", lambda: admin.list_consumer_group_offsets(group)
        )
    finally:
        await admin.close()
    return place in committed and committed[place].offset > 0


async def partition_lags(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Records between the position and the end, for each assigned partition fetched so far."""
    lags = {}
    for place in consumer.assignment():
        end = readable_end(consumer, place)
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
            if not worth_another_try(error):
                raise
            if not waited:
                log.warning("%s: Kafka does not answer, trying again: %r", what, error)
            waited = True
            await asyncio.sleep(RETRY_S)
        else:
            if waited:
                log.info("%s: Kafka answers", what)
            return result


async def start_client(make: Callable[[], C]) -> C:
    """A started client; waits for the broker for as long as it takes (see `reach.start_within`)."""

    async def start() -> C:
        client = make()
        try:
            await client.start()
        except BaseException:
            await _close(client)
            raise
        return client

    return await until_answered("connecting", start)


async def _close(client: Any) -> None:
    """aiokafka's admin client is closed, the others are stopped."""
    await (client.close() if hasattr(client, "close") else client.stop())


def worth_another_try(error: Exception) -> bool:
    """Whether the broker is merely away or busy (what else fails would fail again)."""
    away = isinstance(error, (OSError, KafkaTimeoutError))  # aiokafka has the latter as final
    return away or bool(getattr(error, "retriable", False))


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
    producer: AIOKafkaProducer,
    settings: Settings,
    record: Record,
    rejected: Rejected,
    metrics: RoleMetrics,
) -> None:
    """Publish the dead letter of `record` and await the broker's acknowledgement.

    One that Kafka refuses for good is logged, counted and given up: the role goes on, and the
    record itself is in the event log.
    """
    if rejected.reason == "failed":
        metrics.failed.labels(topic=record.topic).inc()
    key, value, headers = dead_letter(record, rejected)
    topic = settings.topic("dead-letters")
    try:
        await deliver(producer, topic, value, key=key, headers=headers)
    except ProducerClosed:
        raise  # the role stops; it reads the record again when it starts
    except KafkaError as error:
        metrics.dead_letters_lost.labels(reason=rejected.reason).inc()
        log.error(
            "the dead letter of %s/%d@%d (%s: %s) is lost, Kafka refuses it: %r",
            *(record.topic, record.partition, record.offset),
            *(rejected.reason, rejected.detail, error),
        )
