"""Events that are timed far ahead of their partition's bulk: counted, and said once a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from models.schemas import to_rfc3339
from streams.metrics import TrackerMetrics
from streams.tracker.reducer import Arrival

log = logging.getLogger(__name__)

EVERY_S: Final = 60.0


class FarAhead:
    """Counts them by partition, and names one of them at most once in `EVERY_S`."""

    def __init__(
        self, metrics: TrackerMetrics, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._counter, self._monotonic = metrics.events_far_ahead, monotonic
        self._quiet_until = 0.0

    def note(self, partition: int, found: Sequence[tuple[Arrival, int]]) -> None:
        """`found`: such arrivals, each with the event time of the bulk then."""
        if not found:
            return
        self._counter.labels(partition=str(partition)).inc(len(found))
        now = self._monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + EVERY_S
        one, bulk = found[0]
        log.warning(
            "interactions partition %d offset %d: user %s did this at %s, while the others are at "
            "%s. Nobody else grows older by it. If this is no import sorted by user, look at the "
            "clock of whoever sent event %s",
            *(partition, one.offset, one.interaction.user_id),
            *(to_rfc3339(one.interaction.timestamp), to_rfc3339(bulk)),
            one.interaction.event_id,
        )
