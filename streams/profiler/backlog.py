"""Requests that wait for the engine: per user only the newest, one at a time. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from streams.codec import Record
from streams.profiler.profile_version import ProfileVersion, RecordPosition


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request as it came; its record is decoded again when its turn comes."""

    user_id: str
    marks: ProfileVersion
    record: Record

    @property
    def position(self) -> RecordPosition:
        """Where the request lies."""
        return RecordPosition(self.record.partition, self.record.offset)


class Backlog:
    """First come, first served, over users; a newer request takes the place of an older one."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}  # in order of arrival of the user's first
        self._working: set[str] = set()

    def offer(self, new: Waiting) -> Waiting | None:
        """Take in a request; the one that needs no answer any more, this or an older, if any."""
        old = self._waiting.get(new.user_id)
        if old is None:
            self._waiting[new.user_id] = new
            return None
        if new.marks < old.marks:
            return new
        self._waiting[new.user_id] = new  # keeps the place in the queue
        return old

    def take(self) -> Waiting | None:
        """The next request of a user who is not being worked on; `release` gives the user back."""
        for user_id, waiting in self._waiting.items():
            if user_id not in self._working:
                del self._waiting[user_id]
                self._working.add(user_id)
                return waiting
        return None

    def hold(self, user_id: str) -> bool:
        """Begin work on a user outside the queue; False if there is work on them already."""
        if user_id in self._working or user_id in self._waiting:
            return False
        self._working.add(user_id)
        return True

    def release(self, user_id: str) -> None:
        """The work on this user has ended."""
        self._working.discard(user_id)

    def forget(self, partitions: Collection[int]) -> None:
        """These partitions belong to another profiler now."""
        gone = [u for u, w in self._waiting.items() if w.record.partition in partitions]
        for user_id in gone:
            del self._waiting[user_id]

    def clear(self) -> None:
        """Begin nothing more."""
        self._waiting.clear()

    @property
    def working(self) -> int:
        """Users being worked on."""
        return len(self._working)

    def __len__(self) -> int:
        return len(self._waiting)
