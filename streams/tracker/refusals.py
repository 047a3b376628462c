"""What is refused: records that we do not apply, and messages that Kafka does not take.

A record that is not applied becomes a dead letter, or is sent on once if only its key is wrong. A
message that Kafka refuses for good is given up, for without it its partition's transaction passes;
what is remembered of it keeps it from being made again when the batch is worked again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Final

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from models.errors import TopicError
from models.settings import Settings
from streams.codec import (
    HEADER_BYTES,
    KEY_BYTES,
    Misrouted,
    Rejected,
    forwarded_headers,
)
from streams.dead_letters import dead_letter
from streams.metrics import TrackerMetrics
from streams.tracker.partition_takeover import Partitions
from streams.tracker.partition_writer import Output, OutputsRefused
from streams.tracker.quarantine import UserQuarantine
from streams.tracker.runtime import DeliveredRecord

log = logging.getLogger(__name__)

TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)


class Refusals:
    """Dead letters and events sent on, and which of the messages to Kafka are given up."""

    def __init__(
        self,
        settings: Settings,
        partitions: Partitions,
        quarantines: Mapping[str, UserQuarantine],
        metrics: TrackerMetrics,
    ) -> None:
        """`quarantines`: topic → users who are left alone by the loop that writes there."""
        self._settings, self._partitions = settings, partitions
        self._quarantines, self._metrics = quarantines, metrics
        self._too_large_to_forward: set[bytes] = set()  # sha256 of events that Kafka refused so
        # Dead letters that Kafka has refused, by topic, partition and offset of their record.
        self._lost_letters: set[tuple[str, int, int]] = set()

    # -- by us ----------------------------------------------------------------------------

    def refuse_event(self, row: DeliveredRecord, problem: Misrouted | Rejected) -> None:
        """Send an interaction on, or make it a dead letter, and count it."""
        if isinstance(problem, Rejected):
            self._metrics.events.labels(type="unknown", outcome=problem.reason).inc()
            self.dead_letter(row, problem)
            return
        kind = problem.interaction.type.value
        self._metrics.events.labels(type=kind, outcome="forwarded").inc()
        size = len(row.value or b"")
        too_large = size + HEADER_BYTES + KEY_BYTES > self._settings.kafka.max_message_bytes
        if too_large or _digest(row.value) in self._too_large_to_forward:
            self.dead_letter(row, Rejected("too_large", f"{size} bytes cannot be sent on"))
        else:
            self._forward(row, problem)

    def _forward(self, row: DeliveredRecord, problem: Misrouted) -> None:
        message = Output(
            self._settings.topic("interactions"),
            problem.interaction.user_id.encode(),
            row.value,
            problem.partition,
            forwarded_headers(row.headers),
        )
        self._partitions.send(row.partition, message)

    def dead_letter(self, row: DeliveredRecord, why: Rejected) -> None:
        """Put a record's dead letter into the transaction of its partition."""
        if why.reason == "failed":
            self._metrics.failed.labels(topic=row.topic).inc()
        key, value, headers = dead_letter(row, why)
        topic = self._settings.topic("dead-letters")
        message = Output(topic, key, value, headers=tuple(headers))
        if (row.topic, row.partition, row.offset) not in self._lost_letters:
            self._partitions.send(row.partition, message)

    # -- by Kafka -------------------------------------------------------------------------

    def note(self, refused: OutputsRefused) -> None:
        """Give up what Kafka refuses for good; what is not the message's fault ends the role."""
        for output in refused.outputs:
            if output.topic == self._settings.topic("dead-letters"):
                self._lose_letter(output, refused.error)
            elif not isinstance(refused.error, TOO_LARGE) or not self._give_up(
                output, refused.error
            ):
                where = f"topic {output.topic}, key {output.key!r:.80}"
                error = TopicError(
                    f"{where}: Kafka refuses the message ({refused.error!r}); are the topic's "
                    "max.message.bytes and the rights of this user as they were?"
                )
                self._partitions.fail(error)
                return

    def _lose_letter(self, output: Output, error: KafkaError) -> None:
        told = {name: value.decode() for name, value in output.headers}
        self._lost_letters.add(
            (told["palate-topic"], int(told["palate-partition"]), int(told["palate-offset"]))
        )
        self._metrics.dead_letters_lost.labels(reason=told["palate-reason"]).inc()
        log.error(
            "the dead letter of %s/%s@%s (%s: %s) is lost, Kafka refuses it: %r",
            *(told["palate-topic"], told["palate-partition"], told["palate-offset"]),
            *(told["palate-reason"], told["palate-detail"], error),
        )

    def _give_up(self, output: Output, error: KafkaError) -> bool:
        """A message too large for its topic: it is its user's, and the others' go on."""
        topic = output.topic.removeprefix(self._settings.kafka.prefix)
        if topic == "interactions":  # then it becomes a dead letter
            self._too_large_to_forward.add(_digest(output.value))
            return True
        if topic not in self._quarantines or output.value is None or output.partition is None:
            return False
        place = output.partition, (output.key or b"").decode()
        self._quarantines[topic].refuse(place, output.value, error)
        return True


def _digest(value: bytes | None) -> bytes:
    return hashlib.sha256(value or b"").digest()
