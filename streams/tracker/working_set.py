"""What a worker holds in memory of its partitions; forgotten when they are lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.errors import PartitionLost
from models.settings import Settings
from streams.metrics import TrackerMetrics
from streams.partition_clock import PartitionClock
from streams.tracker.partition_takeover import Partitions
from streams.tracker.scheduling import RefreshQueue, ServeQueue
from streams.tracker.state import CLOCK_KEY, encode_clock
from streams.tracker.users import Users

INTERACTIONS, EDITS = 0, 1  # places in `next_offsets`


class WorkingSet:
    """Users, who of them is owed something, and how far their partitions are applied.

    A partition is in it from the time when its state was read until it is lost or given back.
    """

    def __init__(self, settings: Settings, partitions: Partitions, metrics: TrackerMetrics) -> None:
        self._partitions = partitions
        self.users = Users(partitions, settings.windows.history_cap, metrics)
        self.waiting = ServeQueue(settings.ranking.interval_s)
        self.due = RefreshQueue(settings.trigger, settings.windows)
        self.clocks: dict[int, PartitionClock] = {}
        self.next_offsets: dict[int, list[int]] = {}  # partition → [interactions, edits]
        # Not in the state: after a restart the committed offset tells it well enough, for a
        # newer profile takes the place of one that was missed.
        self.next_profiles: dict[int, int] = {}
        self.lags: dict[int, int] = {}  # records behind, by partition of interactions

    def __contains__(self, partition: int) -> bool:
        return partition in self.clocks

    def begin(self, partition: int, clock: PartitionClock, next_offsets: tuple[int, int]) -> None:
        """The partition was acquired."""
        self.next_offsets[partition] = list(next_offsets)  # a new list: see `check_unchanged`
        self.clocks[partition] = clock

    def drop(self, partition: int) -> None:
        """The partition was lost."""
        self.drop_except(self.clocks.keys() - {partition})

    def drop_except(self, partitions: set[int]) -> None:
        """All partitions but these are lost or given back."""
        for partition in self.clocks.keys() - partitions:
            del self.clocks[partition]
            self.users.forget_cached(partition)
            del self.next_offsets[partition]
            self.lags.pop(partition, None)
        self.waiting.drop_partitions_except(partitions)
        self.due.drop_partitions_except(partitions)

    def forget_profiles_except(self, partitions: set[int]) -> None:
        """These are assigned now; of the others profiles are read by another worker."""
        for partition in self.next_profiles.keys() - partitions:
            del self.next_profiles[partition]

    def expected(self, kind: int) -> dict[int, int]:
        """Partition → the offset that should come next."""
        return {partition: offsets[kind] for partition, offsets in self.next_offsets.items()}

    def held(self) -> Mapping[int, list[int]]:
        """What is held now, for `check_unchanged`."""
        return dict(self.next_offsets)

    def check_unchanged(self, partitions: Iterable[int], before: Mapping[int, list[int]]) -> None:
        """Raise PartitionLost if one of them was lost since `before`, also if it is ours again.

        `next_offsets` has a new list for a partition whenever it was acquired.
        """
        for partition in partitions:
            offsets = self.next_offsets.get(partition)
            if offsets is None or offsets is not before.get(partition):
                raise PartitionLost(partition, None)

    def save_clock(self, partition: int) -> None:
        """Write the clock and the next offsets, with the changes that moved them."""
        value = encode_clock(self.clocks[partition], *self.next_offsets[partition])
        self._partitions.write(partition, [(CLOCK_KEY, value)])
