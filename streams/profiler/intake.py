"""Records of topic `profile-requests` in, offsets out: fetch, finish in any order, commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from models.settings import Settings
from streams.codec import Record
from streams.kafka.clients import (
    consumer,
    group_id,
    partition_lags,
    readable_end,
    start_client,
    worth_another_try,
)
from streams.kafka.consumption import positions_of
from streams.metrics import ProfilerMetrics
from streams.profiler.low_watermark import LowWatermark
from streams.profiler.replica import Replica

log = logging.getLogger(__name__)

TOPIC: Final = "profile-requests"
POLL_MS: Final = 200
POLL_RECORDS: Final = 200
RETRY_S: Final = 0.5
COMMIT_WITHIN_S: Final = 2.0  # the last commit
REBALANCED: Final = (CommitFailedError, IllegalStateError)


class Intake(ConsumerRebalanceListener):
    """The group's consumer. `forget` is called with partitions that went to another profiler."""

    def __init__(
        self,
        settings: Settings,
        metrics: ProfilerMetrics,
        forget: Callable[[Collection[int]], None],
        replica: Replica,
    ) -> None:
        self._replica = replica
        self._settings, self._metrics, self._forget = settings, metrics, forget
        self._topic = settings.topic(TOPIC)
        self._watermark = LowWatermark()
        self._committed: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self.joined = False  # the group has said what is ours, be it nothing

    async def start(self) -> None:
        """Ask to join the group; waits for the broker, and not until it has `joined`."""
        group = group_id(self._settings, "profiler")
        name = self._replica.client_id(self._settings)
        self._consumer = await start_client(
            lambda: consumer(self._settings, (), group, client_id=name)
        )
        self._consumer.subscribe([self._topic], listener=self)

    async def stop(self) -> None:
        """Commit what is finished and leave the group; may be called twice."""
        if self._consumer is not None:
            with contextlib.suppress(TimeoutError):  # a broker that is away: they are read again
                async with asyncio.timeout(COMMIT_WITHIN_S):
                    await self.commit()
            await self._consumer.stop()
            self._consumer = None

    async def fetch(self, *, full: bool) -> list[ConsumerRecord]:
        """New records, begun; none while `full`, though the place in the group is kept."""
        client = self._client()
        own = client.assignment()
        if full:
            client.pause(*own)
        else:
            client.resume(*own)
        try:
            batches = await client.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        except (KafkaError, OSError) as error:
            if not worth_another_try(error):
                raise
            log.warning("%s: %r; reading goes on when Kafka answers", self._topic, error)
            await asyncio.sleep(RETRY_S)
            return []
        records = [record for batch in batches.values() for record in batch]
        for record in records:
            self._watermark.start(self._place(record), record.offset)
        return records

    def finish(self, record: Record) -> None:
        """What the record asked for is done, durably; or it asks for nothing."""
        self._watermark.done(self._place(record), record.offset)

    async def commit(self) -> None:
        """Commit the lowest unfinished offsets, where they have moved."""
        client = self._client()
        own = client.assignment()
        moved = {
            place: offset
            for place, offset in self._watermark.committable().items()
            if place in own and self._committed.get(place) != offset
        }
        await self._measure(client)
        if not moved:
            return
        try:
            await client.commit(moved)
        except (KafkaError, OSError) as error:  # after a rebalance the next round commits
            if not (isinstance(error, REBALANCED) or worth_another_try(error)):
                raise
            log.warning("%s: offsets not committed yet: %r", self._topic, error)
            return
        self._committed |= moved

    async def positions(self) -> dict[TopicPartition, int | None]:
        """The next offset to fetch, of each partition that is ours."""
        return await positions_of(self._client())

    @property
    def partitions(self) -> set[int]:
        """Partitions that are this profiler's now."""
        return {place.partition for place in self._client().assignment()}

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Keep what was finished; the rest is read again by whoever owns it next."""
        self.joined = False
        if not revoked:
            return
        await self.commit()
        self._watermark.forget(revoked)
        for place in revoked:
            self._committed.pop(place, None)
            with contextlib.suppress(KeyError):  # its lag was never known
                self._metrics.lag.remove(TOPIC, str(place.partition))
        self._forget({place.partition for place in revoked})

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Said once per rebalance."""
        self.joined = True
        log.info("partitions %s", sorted(place.partition for place in assigned))

    def _place(self, record: Record) -> TopicPartition:
        return TopicPartition(self._topic, record.partition)

    def _client(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "used before start"
        return self._consumer

    async def _measure(self, client: AIOKafkaConsumer) -> None:
        """Lag counts what is unfinished, too, unlike the consumer's own position."""
        finished = self._watermark.committable()
        lags: dict[TopicPartition, int] = {}
        with contextlib.suppress(IllegalStateError):  # a rebalance in between; the next round
            lags = await partition_lags(client)
        for place, behind in lags.items():
            end = readable_end(client, place)
            under_way = self._watermark.unfinished(place) > 0
            lag = end - finished[place] if under_way and end is not None else behind
            self._metrics.lag.labels(topic=TOPIC, partition=place.partition).set(max(0, lag))
