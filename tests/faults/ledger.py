"""What was sent and what Kafka has acknowledged of it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple


class Entry(NamedTuple):
    """One acknowledged record."""

    topic: str  # without the prefix
    partition: int
    offset: int
    key: bytes
    value: bytes


@dataclass
class Ledger:
    """Written by the producer's thread, read by the checker's."""

    entries: list[Entry] = field(default_factory=list)
    sent: int = 0  # also those of which nobody knows whether Kafka has them
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tried(self) -> None:
        """A record was handed to the producer."""
        with self._lock:
            self.sent += 1

    def acknowledged(self, entry: Entry) -> None:
        """Kafka says that it has this record there."""
        with self._lock:
            self.entries.append(entry)

    def snapshot(self) -> list[Entry]:
        """All acknowledged so far."""
        with self._lock:
            return list(self.entries)

    def by_topic(self) -> Counter[str]:
        """Number of acknowledged records of each topic."""
        return Counter(entry.topic for entry in self.snapshot())
