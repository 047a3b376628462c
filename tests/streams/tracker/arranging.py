"""A tracker without Kafka and disk, and what it is given, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from unittest.mock import patch

from prometheus_client import CollectorRegistry

from models.fakes import MemoryIndex
from models.schemas import Interaction, ProfileEdit
from models.settings import Settings
from streams.metrics import TrackerMetrics
from streams.partition_clock import PartitionClock
from streams.tracker import role as role_module
from streams.tracker.partition_writer import Output
from streams.tracker.role import TrackerRole
from streams.tracker.runtime import DeliveredRecord
from tests.fuzz.seeds import NOW


class Letters:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, dict[str, bytes]]] = []

    async def send_and_wait(self, topic: str, value: bytes | None, **options: object) -> None:
        self.sent.append((topic, value, dict(options["headers"])))  # type: ignore[call-overload]

    def failed(self) -> list[tuple[int, int]]:
        """Partition and offset of the records that became dead letters `failed`."""
        return [
            (int(headers["palate-partition"]), int(headers["palate-offset"]))
            for _, _, headers in self.sent
            if headers["palate-reason"] == b"failed"
        ]


class MemoryPartitions:
    """The tracker's partitions in a dictionary; messages go to `letters`."""

    def __init__(self, letters: Letters) -> None:
        self.records: dict[tuple[int, bytes], bytes] = {}
        self._letters = letters

    def get(self, partition: int, key: bytes) -> bytes | None:
        return self.records.get((partition, key))

    def write(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        for key, value in records:
            if value is None:
                self.records.pop((partition, key), None)
            else:
                self.records[partition, key] = value

    def send(self, _: int, output: Output) -> None:
        self._letters.sent.append((output.topic, output.value, dict(output.headers)))

    async def committed(self, _: Iterable[int]) -> None:
        return None


def tracker(settings: Settings, registry: CollectorRegistry) -> tuple[TrackerRole, Letters]:
    metrics, letters = TrackerMetrics(registry), Letters()
    with patch.object(role_module, "Partitions", lambda *_: MemoryPartitions(letters)):
        role = TrackerRole(settings, worker=0, index=MemoryIndex(), metrics=metrics)
    role.working_set.begin(0, PartitionClock(), (0, 0))
    role.intake._measure_lag = lambda _: None  # type: ignore[method-assign]
    return role, letters


def rows(topic: str, *messages: Interaction | ProfileEdit) -> list[DeliveredRecord]:
    return [
        DeliveredRecord(topic, 0, offset, NOW, one.user_id.encode(), one.to_json(), ())
        for offset, one in enumerate(messages)
    ]


def event(number: int, user: str) -> Interaction:
    values = {"event_id": f"e{number}", "user_id": user, "item_id": "i", "type": "purchase"}
    return Interaction.model_validate(values | {"timestamp": NOW + number})
