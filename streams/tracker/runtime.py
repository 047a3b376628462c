"""Faust, all of it: it shares the partitions out and delivers records, in batches.

The rest of the tracker knows `FaustRuntime` and `Batch`, and no Faust. State is not in its tables:
what its workers write after their session has ended is not fenced, and its recovery takes that for
its own. Where Faust has no public door, its private ones are used here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, EventT, StreamT

from models.errors import StackError
from models.settings import Settings
from streams.kafka.clients import client_options, readable_end

BATCH: Final = 2_000  # records taken from a channel at once
BEHIND: Final = 500  # records of a partition, from which on batches are let fill up
FILL_S: Final = 0.1  # for at most so long
PREFETCH: Final = 8_192  # records Faust may hold ready per channel
NO_TIME: Final = -1  # as Kafka has it
COMMIT_S: Final = 1.0  # between commits of offsets
# aiokafka has one request under way at a broker. If it asks for silent partitions alone, since the
# others' last records were not yet taken, new ones wait until it is over: with Faust's 1.5 s,
# events then came in lumps of a second.
FETCH_WAIT_MS: Final = 50


class DeliveredRecord(NamedTuple):
    """A record as streams/codec.py wants it, made from a Faust message."""

    topic: str
    partition: int
    offset: int
    timestamp: int  # Kafka time, epoch ms
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Batch:
    """Records that were delivered together."""

    def __init__(self, events: Sequence[EventT]) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events)

    @property
    def partitions(self) -> set[int]:
        """Of its records."""
        return {event.message.partition for event in self._events}

    def records(self) -> list[DeliveredRecord]:
        """Its records, in the order in which they were delivered."""
        return [row_of(event) for event in self._events]

    def part(self, is_ours: Callable[[int, int], bool]) -> Batch:
        """Those of its records of whose (partition, generation of the assignment) that holds."""
        return Batch(
            [
                event
                for event in self._events
                if is_ours(event.message.partition, event.message.generation_id)
            ]
        )

    def acknowledge(self) -> None:
        """Let Faust commit past its records."""
        for event in self._events:
            event.ack()


class FaustRuntime:
    """One worker's app."""

    def __init__(self, settings: Settings, worker: int) -> None:
        """Nothing is connected yet."""
        self._settings = settings
        self._app = create_app(settings, worker)
        self._read: set[str] = set()  # topics, by their full names

    def deliver(self, topic: str, take: Callable[[Batch], Awaitable[None]]) -> None:
        """Give the batches of a topic to `take`, one after another; before `open`."""

        async def agent(stream: StreamT) -> None:
            async for events in batches(self._app, stream):
                await take(Batch(events))

        self._read.add(self._settings.topic(topic))
        self._app.agent(raw_topic(self._app, self._settings, topic), name=topic)(agent)

    def open(
        self, on_revoked: Callable[[], Awaitable[None]], on_assigned: Callable[[], Awaitable[None]]
    ) -> None:
        """Get ready to start. Nothing is delivered before `on_assigned` returns."""

        async def revoked(_app: faust.App, *_: object, **__: object) -> None:
            await on_revoked()

        async def assigned(_app: faust.App, *_: object, **__: object) -> None:
            await on_assigned()

        self._app.finalize()
        read_again_from_commits(self._app)
        leave_stuck_streams_to_readiness(self._app)
        self._app.on_partitions_revoked.connect(revoked)
        self._app.on_rebalance_complete.connect(assigned)

    async def start(self) -> None:
        """Join the group."""
        await self._app.start()

    async def stop(self) -> None:
        """Leave the group."""
        await self._app.stop()

    async def crash(self, error: BaseException) -> None:
        """End with this error: it goes to `ended_by`."""
        await self._app.crash(error)

    async def ended(self) -> None:
        """Wait until the app has ended, by itself or by `crash`."""
        await self._app.wait_until_stopped()

    def ended_by(self) -> Exception:
        """What the app has ended by, to be raised."""
        reason = self._app.crash_reason
        if isinstance(reason, Exception):
            return reason
        return StackError(
            f"Faust's app has ended by itself ({reason!r}); started again, the tracker goes on "
            "from its state"
        )

    @property
    def not_ready(self) -> str | None:
        """Why it does not deliver; None if it does."""
        if self._app.should_stop:
            return f"Faust's app has ended: {self._app.crash_reason!r}"
        return None

    @property
    def generation(self) -> int:
        """Of the group's assignment."""
        generation: int = self._app.consumer_generation_id
        return generation

    def assigned(self, topic: str) -> set[int]:
        """The partitions of a topic that this worker has now."""
        name = self._settings.topic(topic)
        return {tp.partition for tp in self._app.consumer.assignment() if tp.topic == name}

    def end_of(self, place: TopicPartition) -> int | None:
        """Up to where there is something to read in a partition of this worker, if it is known."""
        return end_of(self._app, TP(*place))

    async def positions(self) -> dict[TopicPartition, int | None]:
        """How far Faust has read what it delivers; None where nothing was fetched yet.

        To ask for the position there would block it.
        """
        client = self._app.consumer._thread._ensure_consumer()
        own = [place for place in client.assignment() if place.topic in self._read]
        fetched = [place for place in own if readable_end(client, place) is not None]
        return dict.fromkeys(own) | {
            place: await self._app.consumer.position(TP(*place)) or 0 for place in fetched
        }

    async def check_group(self) -> None:
        """Raise what aiokafka has met while joining the group; Faust never asks, and it waits."""
        thread = self._app.consumer._thread

        async def check() -> None:
            thread._ensure_consumer()._coordinator.check_errors()

        await thread.call_thread(check)


class CommittedThread(driver.AIOKafkaConsumerThread):
    """Reads only what is committed; Faust itself does so under `exactly_once` alone."""

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # both are looked at when it starts
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class CommittedConsumer(driver.Consumer):
    """Sees nothing of transactions that were aborted or are open."""

    def _new_consumer_thread(self) -> CommittedThread:
        return CommittedThread(self, loop=self.loop, beacon=self.beacon)


def create_app(settings: Settings, worker: int) -> faust.App:
    """The app of one worker. Nothing is connected yet."""
    datadir = settings.data_dir / "state" / f"worker-{worker}"
    datadir.mkdir(parents=True, exist_ok=True)
    kafka = settings.kafka
    app = faust.App(
        f"{kafka.prefix}palate-tracker",
        broker=[f"kafka://{address.strip()}" for address in kafka.bootstrap.split(",")],
        broker_credentials=_credentials(settings),
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.heartbeat_s,
        broker_commit_interval=COMMIT_S,
        consumer_auto_offset_reset="earliest",
        datadir=str(datadir.resolve()),
        topic_allow_declare=True,
        topic_disable_leader=True,
        topic_partitions=kafka.partitions,
        topic_replication_factor=kafka.replication,
        stream_buffer_maxsize=PREFETCH,
        stream_wait_empty=False,
        web_enabled=False,
        autodiscover=False,
        key_serializer="raw",
        value_serializer="raw",
    )
    app.transport.Consumer = CommittedConsumer
    return app


def _credentials(settings: Settings) -> Any:
    kafka = settings.kafka
    context = client_options(settings).get("ssl_context")
    if kafka.sasl_username and kafka.sasl_password:
        return faust.SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password.get_secret_value(),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


def raw_topic(app: faust.App, settings: Settings, name: str) -> Any:
    """A topic of raw bytes; decoding is streams/codec.py's."""
    return app.topic(
        settings.topic(name),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        allow_empty=True,
        internal=False,
    )


async def batches(app: faust.App, stream: StreamT) -> AsyncIterator[list[EventT]]:
    """Whatever is ready in the stream's channel, at least one event, at most BATCH.

    Far behind, it waits a little for more to be ready: the fewer batches, the fewer writes.

    Faust's `take` spends most of its time on bookkeeping per event (sensors, processors, one
    turn of the loop each); an agent that works in batches needs none of it. Events are to be
    acknowledged by the caller.
    """
    await stream.maybe_start()
    queue = stream.channel.queue
    while not stream.should_stop:
        try:
            events = [await queue.get()]
        except StopAsyncIteration:  # how Faust tells a waiting stream to stop
            return
        await _fill(app, queue, events)
        current = [event for event in events if _is_current(app, event)]
        for event in current:
            _track(app, event)
        _note_progress(app, current)
        if current:
            yield current
        await asyncio.sleep(0)


async def _fill(app: faust.App, queue: asyncio.Queue[EventT], events: list[EventT]) -> None:
    deadline = time.monotonic() + FILL_S
    while True:
        while len(events) < BATCH and not queue.empty():
            events.append(queue.get_nowait())
        full = len(events) >= BATCH or time.monotonic() > deadline
        if full or not _is_behind(app, events[-1]):
            return
        await asyncio.sleep(FILL_S / 20)


def _is_behind(app: faust.App, event: EventT) -> bool:
    end = end_of(app, event.message.tp)
    return end is not None and end - event.message.offset > BEHIND


def end_of(app: faust.App, tp: TP) -> int | None:
    """Up to where there is something to read in a partition of this worker, if that is known."""
    return readable_end(app.consumer._thread._ensure_consumer(), tp)


def read_again_from_commits(app: faust.App) -> None:
    """Let a rebalance take a partition without a commit back to its beginning.

    Faust drops records that were fetched around a rebalance and goes back to the committed
    offsets; aiokafka goes nowhere where there is none (or 0), and the dropped records are lost.
    """
    consumer, seek_to_committed = app.consumer, app.consumer.seek_to_committed

    async def seek() -> Mapping[TP, int]:
        offsets: Mapping[TP, int] = await seek_to_committed()
        uncommitted = [tp for tp in offsets if not offsets[tp]]
        if uncommitted:
            await consumer._thread.seek_to_beginning(*uncommitted)  # Faust has no public door
        return offsets

    consumer.seek_to_committed = seek


def leave_stuck_streams_to_readiness(app: faust.App) -> None:
    """Switch off Faust's own search for stuck streams.

    It asserts that every partition has a position, which ends a healthy worker in the middle of a
    rebalance. Whether offsets move is what the role's readiness says.
    """
    app.consumer.verify_event_path = lambda *_: None


def _is_current(app: faust.App, event: EventT) -> bool:
    return app.flow_control.is_active() and (
        event.message.generation_id == app.consumer_generation_id
    )


def _track(app: faust.App, event: EventT) -> None:
    message = event.message
    if not message.tracked:
        message.tracked = True
        app.consumer.unacked.add(message)


def _note_progress(app: faust.App, events: list[EventT]) -> None:
    """Without it Faust reports, five minutes after the start, that nothing is processed."""
    now = time.monotonic()
    for tp in {event.message.tp for event in events}:
        app.monitor.stream_inbound_time[tp] = now


def row_of(event: EventT) -> DeliveredRecord:
    """A Faust event as a record; Faust keeps Kafka's time in seconds."""
    message = event.message
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return DeliveredRecord(
        message.topic,
        message.partition,
        message.offset,
        NO_TIME if message.timestamp is None else round(message.timestamp * 1000),
        message.key,
        message.value,
        tuple(pairs),
    )
