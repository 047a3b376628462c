"""What topic `profiles` already holds: marks per user, and which profiles are owed again."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from models.schemas import Profile
from streams.codec import Record, Rejected, Removal, decode_keyed
from streams.profiler.profile_version import ProfileVersion, RecordPosition

log = logging.getLogger(__name__)

MAX_DOUBLINGS: Final = 7  # 30 s grow to about an hour between the tries of one profile


@dataclass(slots=True)
class StoredFallback:
    """A user whose newest profile is a fallback: the request is to be answered again.

    `due_ms` is wall time in milliseconds.
    """

    user_id: str
    marks: ProfileVersion
    request_id: str
    position: RecordPosition
    due_ms: float
    tries: int = 0


class StoredProfiles:
    """Newest marks of every user and the debts, kept up by following the compacted topic."""

    def __init__(self, retry_after_s: float, partitions: int) -> None:
        self._partitions = partitions
        self._retry_after_ms = retry_after_s * 1000
        self._newest: dict[str, tuple[ProfileVersion, bool]] = {}  # bool: written by the model
        self._debts: dict[str, StoredFallback] = {}

    def on_record(self, record: Record) -> None:
        """Take in one record of topic `profiles`; a tombstone forgets the user."""
        found = decode_keyed(record, Profile, self._partitions)
        if isinstance(found, Rejected):
            log.warning("profiles/%s@%s: %s", record.partition, record.offset, found.detail)
        elif isinstance(found, Removal):
            self._drop(found.id)
        else:
            self.note(found)

    def note(self, profile: Profile) -> None:
        """A profile has been written; if a fallback, its debt falls due `retry_after_s` later."""
        written = (ProfileVersion.of_profile(profile), not profile.fallback)
        known = self._newest.get(profile.user_id)
        if known is not None and written <= known:
            return
        self._newest[profile.user_id] = written
        self._debts.pop(profile.user_id, None)
        debt = _debt(profile, profile.created_at + self._retry_after_ms)
        if debt:
            self._debts[profile.user_id] = debt

    def answers(self, user_id: str, marks: ProfileVersion) -> bool:
        """Whether the stored profile is as new as `marks` and needs no other."""
        return self._newest.get(user_id, (ProfileVersion(-1, -1, -1), False)) >= (marks, True)

    def still_owed(self, debt: StoredFallback) -> bool:
        """Whether nothing newer has come since the debt was taken."""
        return self._debts.get(debt.user_id) is debt

    def due_debts(
        self, now_ms: float, partitions: Collection[int], most: int
    ) -> list[StoredFallback]:
        """At most `most` debts that are due, of requests on these partitions; longest due first."""
        due = [
            debt
            for debt in self._debts.values()
            if debt.due_ms <= now_ms and debt.position.partition in partitions
        ]
        return sorted(due, key=lambda debt: (debt.due_ms, debt.user_id))[: max(0, most)]

    def postpone(self, debt: StoredFallback, now_ms: float) -> None:
        """Another try failed: the next follows after twice as long."""
        debt.due_ms = now_ms + self._retry_after_ms * 2 ** min(debt.tries, MAX_DOUBLINGS)
        debt.tries += 1

    def write_off(self, debt: StoredFallback) -> None:
        """The request cannot be read any more; the fallback stays the user's profile."""
        if self.still_owed(debt):
            del self._debts[debt.user_id]

    @property
    def debts(self) -> int:
        """Profiles that are owed again."""
        return len(self._debts)

    def _drop(self, user_id: str) -> None:
        self._newest.pop(user_id, None)
        self._debts.pop(user_id, None)


def _debt(profile: Profile, due_ms: float) -> StoredFallback | None:
    partition, offset = profile.request_partition, profile.request_offset
    if not profile.fallback or partition is None or offset is None:
        return None
    marks = ProfileVersion.of_profile(profile)
    return StoredFallback(
        profile.user_id, marks, profile.request_id, RecordPosition(partition, offset), due_ms
    )
