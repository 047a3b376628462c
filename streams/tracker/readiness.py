"""Whether the tracker does its work, and what it waits for if not."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aiokafka import TopicPartition

from models.settings import Settings
from streams.kafka.consumption import ConsumptionWatch, Positions
from streams.kafka.topic_follower import TopicFollower
from streams.tracker.assignment import Assignment
from streams.tracker.partition_takeover import Partitions
from streams.tracker.runtime import FaustRuntime
from streams.tracker.serving_views import ServingViews
from streams.tracker.working_set import EDITS, INTERACTIONS, WorkingSet


class BatchTimes:
    """Since when the batch of each topic, or the present part of it, is being worked."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # topic → monotonic seconds

    def begin(self, topic: str) -> None:
        """A batch, or the next part of one."""
        self._since[topic] = time.monotonic()

    def end(self, topic: str) -> None:
        """The batch is over."""
        del self._since[topic]

    def stuck(self, limit_s: float) -> str | None:
        """A topic whose batch takes longer than that, if there is one."""
        before = time.monotonic() - limit_s
        return next((topic for topic, since in self._since.items() if since < before), None)


class Readiness:
    """Asks the parts of the tracker."""

    def __init__(
        self,
        settings: Settings,
        runtime: FaustRuntime,
        partitions: Partitions,
        assignment: Assignment,
        working_set: WorkingSet,
        views: ServingViews,
        followers: Sequence[TopicFollower],
        times: BatchTimes,
    ) -> None:
        self._settings, self._runtime, self._partitions = settings, runtime, partitions
        self._assignment, self._working_set = assignment, working_set
        self._views, self._followers, self._times = views, followers, times
        self.reading = ConsumptionWatch(settings, self._positions)

    @property
    def not_ready(self) -> str | None:
        """Why no work is being done; None if it is."""
        if self._runtime.not_ready:
            return self._runtime.not_ready
        if not self._assignment.generation or not self._partitions.complete:
            return "state is being recovered"
        following = (follower.not_ready for follower in self._followers)
        problem = self._views.not_ready or next(filter(None, following), None)
        return problem or self._standing_still()

    def _standing_still(self) -> str | None:
        limit_s = self._settings.liveness.stalled_s
        if stuck := self._times.stuck(limit_s):
            return f"a batch of {stuck} takes longer than {limit_s:g} s"
        return self.reading.not_ready

    async def _positions(self) -> Positions:
        """Of what is fetched; `BatchTimes` tell whether it is worked."""
        if not self._partitions.complete:
            return {}
        positions = {
            place: None if position is None else max(position, self._applied_until(place))
            for place, position in (await self._runtime.positions()).items()
        }
        for follower in self._followers:
            positions |= await follower.positions()
        return positions

    def _applied_until(self, place: TopicPartition) -> int:
        """More than is fetched where a topic was made anew: that reading begins again."""
        offsets = self._working_set.next_offsets.get(place.partition, (0, 0))
        kinds = {"interactions": INTERACTIONS, "profile-edits": EDITS}
        kind = kinds.get(place.topic.removeprefix(self._settings.kafka.prefix))
        return 0 if kind is None else offsets[kind]
