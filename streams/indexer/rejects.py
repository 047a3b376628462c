"""Records that are no items or profiles: one dead letter each, though every release reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaProducer, TopicPartition

from models.settings import Settings
from streams.codec import Record, Rejected
from streams.kafka.clients import dead_letter_send
from streams.metrics import IndexerMetrics


class Rejects:
    """Sends dead letters of what no release's reader has passed yet.

    Every reader reports a record before it commits past it. So what lies before the furthest
    commit of any of them has been reported, and a release that reads from the beginning has
    nothing to add. Two readers at one place may both report: then there are two letters, as
    after a crash.
    """

    def __init__(
        self, settings: Settings, producer: AIOKafkaProducer, metrics: IndexerMetrics
    ) -> None:
        self._settings, self._producer, self._metrics = settings, producer, metrics
        self._reported: dict[TopicPartition, int] = {}  # offset after the last one passed

    def reported_until(self, positions: Mapping[TopicPartition, int]) -> None:
        """What lies before `positions` has been reported."""
        for place, position in positions.items():
            self._reported[place] = max(position, self._reported.get(place, 0))

    async def report(self, topic: str, record: Record, rejected: Rejected) -> None:
        """Send the record's dead letter and await the acknowledgement, unless it was sent."""
        place = TopicPartition(record.topic, record.partition)
        if record.offset >= self._reported.get(place, 0):
            await dead_letter_send(self._producer, self._settings, record, rejected, self._metrics)
            self._metrics.rows.labels(topic, "invalid").inc()

    def passed(self, records: Iterable[Record]) -> None:
        """Note that these records have been looked at, in order of offset per partition."""
        self.reported_until({TopicPartition(r.topic, r.partition): r.offset + 1 for r in records})
