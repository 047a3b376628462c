"""The name of one profiler process: in its answers to a candidate, and in its consumer group.

Who promotes a release reads the members of the group from Kafka and waits for the answer of each:
so one name must be told from the other.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Final

from models.settings import Settings

_ROLE: Final = "profiler"


def _new_id() -> str:
    return uuid.uuid4().hex[:8]


@dataclass(frozen=True, slots=True)
class Replica:
    """One process; a restarted one is another, which has nothing in memory yet."""

    id: str = field(default_factory=_new_id)

    @property
    def name(self) -> str:
        """As the `by` of announcements."""
        return f"{_ROLE}/{self.id}"

    def client_id(self, settings: Settings) -> str:
        """As the name of its client in the consumer group."""
        return f"{_client_prefix(settings)}{self.id}"


def replica_of(client_id: str, settings: Settings) -> Replica | None:
    """The replica whose client bears this name; None if it is no profiler's."""
    prefix = _client_prefix(settings)
    return Replica(client_id.removeprefix(prefix)) if client_id.startswith(prefix) else None


def _client_prefix(settings: Settings) -> str:
    return f"{settings.kafka.prefix}palate-{_ROLE}-"
