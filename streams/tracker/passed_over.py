"""What was passed over at the end of a topic, where no later record shows the gap.

streams/tracker/gaps.py says how it comes about. So now and then the tracker compares how far Faust
is with how far it is itself, and reads what lies between: all that was committed, if the changelog
is lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiokafka import TopicPartition

from models.settings import Settings
from streams.tracker.gaps import GapReader
from streams.tracker.intake import TrackerIntake
from streams.tracker.runtime import DeliveredRecord, FaustRuntime
from streams.tracker.working_set import EDITS, INTERACTIONS, WorkingSet

BatchTaker = Callable[[list[DeliveredRecord]], Awaitable[None]]


class PassedOver:
    """Finds it and has it applied, beside the agents."""

    def __init__(
        self,
        settings: Settings,
        runtime: FaustRuntime,
        working_set: WorkingSet,
        gaps: GapReader,
        intake: TrackerIntake,
    ) -> None:
        self._settings, self._runtime = settings, runtime
        self._working_set, self._gaps, self._intake = working_set, gaps, intake
        # (next offset, Faust's position) at the last look, and when all between was read.
        self._looked_at: dict[TopicPartition, tuple[int, int]] = {}
        self._read_until: dict[TopicPartition, tuple[int, int]] = {}

    async def read(self) -> None:
        """Apply what lies before Faust's position and was not delivered; edits first."""
        await self._read_topic("profile-edits", EDITS, self._intake.take_edits)
        await self._read_topic("interactions", INTERACTIONS, self._intake.take_interactions)

    async def _read_topic(self, name: str, kind: int, take: BatchTaker) -> None:
        async with self._intake.turns[name]:
            for place, position in (await self._runtime.positions()).items():
                if position is None or place.topic != self._settings.topic(name):
                    continue
                if self._stands(place, kind, position):
                    await self._read_up_to(place, kind, position, take)

    def _stands(self, place: TopicPartition, kind: int, position: int) -> bool:
        """Whether nothing was applied since the last look, though something is before `position`.

        What has been read once and held no record, as a transaction's marker, is left alone.
        """
        offsets = self._working_set.next_offsets.get(place.partition, [position, position])
        now = offsets[kind], position
        before, self._looked_at[place] = self._looked_at.get(place), now
        return now == before and now[0] < position and now != self._read_until.get(place)

    async def _read_up_to(
        self, place: TopicPartition, kind: int, position: int, take: BatchTaker
    ) -> None:
        before, next_offsets = self._working_set.held(), self._working_set.next_offsets
        async for rows, _ in self._gaps.between(
            place, next_offsets[place.partition][kind], position
        ):
            if rows:
                self._working_set.check_unchanged({place.partition}, before)
                await take(rows)
        if place.partition in next_offsets:
            self._read_until[place] = next_offsets[place.partition][kind], position
