"""The tracker's state, made again from the event log.

Interactions and edits are applied through the tracker's own functions in the order in which
Kafka took them; the marks of what was asked for and sent are read off the logged requests and
recommendations. One partition's users are in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from models.schemas import Profile, ProfileEdit
from models.settings import Settings
from streams.codec import Rejected, decode
from streams.event_log import SegmentLog
from streams.event_log.columns import OK, TOMBSTONE
from streams.partition_clock import PartitionClock
from streams.replay import LoggedInteraction, interactions, messages
from streams.tracker.reducer import (
    Arrival,
    apply_edit,
    apply_interactions,
    is_current,
    pass_time,
)
from streams.tracker.state import (
    CLOCK_KEY,
    ProfileRecord,
    User,
    encode_clock,
    encode_profile,
    profile_key,
    source_key,
    store,
)
from streams.triggers import NEVER
from streams.windows import remembered

APPLIED: Final = ("interactions", "profile-edits")


class Asked(NamedTuple):
    """The last logged request of a user."""

    number: int
    applied: int
    edits: int
    as_of: int
    history_from: int
    forgotten_until: int | None = None


@dataclass(slots=True)
class RebuiltPartition:
    """The state of one partition as of the end of the log."""

    partition: int
    next_offset: int  # of interactions
    next_edit: int
    topic_ids: dict[str, str | None] = field(default_factory=dict)  # of what was applied
    clock: PartitionClock = field(default_factory=PartitionClock)
    users: dict[str, User] = field(default_factory=dict)

    def user(self, user_id: str) -> User:
        """The user's state; a fresh one at first."""
        found = self.users.get(user_id)
        if found is None:
            found = self.users[user_id] = User(user_id)
        return found

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """All records of the table `histories` for this partition."""
        for user in self.users.values():
            yield from _records_of(user)
        yield CLOCK_KEY, encode_clock(self.clock, self.next_offset, self.next_edit)
        for topic, topic_id in self.topic_ids.items():
            if topic_id:
                yield source_key(topic), topic_id.encode()


def rebuild_partition(log: SegmentLog, settings: Settings, partition: int) -> RebuiltPartition:
    """Replay everything that a partition's log says about its users."""
    rebuilt = RebuiltPartition(
        partition,
        log.next_offset("interactions", partition),
        log.next_offset("profile-edits", partition),
        {topic: log.manifest(topic, partition).topic_id for topic in APPLIED},
    )
    asked = _last_requests(log, partition)
    evidence = _apply_events(log, settings, rebuilt, asked)
    for user_id, request in asked.items():
        _mark_requested(rebuilt.user(user_id), request, evidence.get(user_id, 0.0))
    _mark_recommended(log, rebuilt)
    _take_profiles(log, rebuilt)
    return rebuilt


def _last_requests(log: SegmentLog, partition: int) -> dict[str, Asked]:
    fields = ("number", "applied_offset", "edits_offset", "as_of", "history_from")
    columns = ("status", "user_id", *fields, "forgotten_until")
    found: dict[str, Asked] = {}
    for row in log.rows("profile-requests", partition, columns=columns):
        if row["status"] == OK:
            asked = Asked(*(row[name] for name in fields))
            asked = asked._replace(forgotten_until=row.get("forgotten_until"))
            known = found.get(row["user_id"], asked)
            found[row["user_id"]] = max(asked, known, key=lambda one: one[:-1])
    return found


def _apply_events(
    log: SegmentLog, settings: Settings, rebuilt: RebuiltPartition, asked: dict[str, Asked]
) -> dict[str, float]:
    """Apply interactions and edits; returns each user's evidence as of the last request."""
    evidence: dict[str, float] = {}
    outcomes: Counter[tuple[str, str]] = Counter()
    edits = _Edits(log, rebuilt)
    for logged in interactions(log, rebuilt.partition):
        edits.apply_before(logged.kafka_time)
        user = rebuilt.user(logged.interaction.user_id)
        passing = pass_time(rebuilt.clock, [_arrival(logged)], rebuilt.user, settings.windows)
        rebuilt.clock = passing.clock
        apply_interactions(user, passing.arrivals, settings.windows, outcomes)
        request = asked.get(user.user_id)
        if request is not None and request.applied == user.head.applied:
            evidence[user.user_id] = user.head.evidence
    edits.apply_before(None)
    return evidence


def _arrival(logged: LoggedInteraction) -> Arrival:
    return Arrival(logged.interaction, logged.offset, logged.kafka_time)


class _Edits:
    """The logged edits, applied in step with the interactions by Kafka's time."""

    def __init__(self, log: SegmentLog, rebuilt: RebuiltPartition) -> None:
        self._rows = messages(log, "profile-edits", rebuilt.partition)
        self._rebuilt = rebuilt
        self._next = next(self._rows, None)

    def apply_before(self, kafka_time: int | None) -> None:
        """Apply the edits that Kafka took before `kafka_time` (None: all)."""
        while self._next and (kafka_time is None or self._next.kafka_time < kafka_time):
            edit = self._next.message
            assert isinstance(edit, ProfileEdit)
            user = self._rebuilt.user(edit.user_id)
            apply_edit(user, edit, self._next.offset, self._next.kafka_time)
            self._next = next(self._rows, None)


def _mark_requested(user: User, asked: Asked, evidence: float) -> None:
    head = user.head
    head.requests, head.requested, head.requested_edits = asked.number, asked.applied, asked.edits
    head.requested_as_of = asked.as_of
    head.requested_evidence = evidence
    until = NEVER if asked.forgotten_until is None else asked.forgotten_until
    if (asked.history_from, until) > (head.history_from, head.forgotten_until):
        # the tracker had taken the wish earlier, or after more events
        head.history_from = max(head.history_from, asked.history_from)
        head.forgotten_until = max(head.forgotten_until, until)
        user.history = remembered(user.history, head.forgotten_until, head.history_from)


def _mark_recommended(log: SegmentLog, rebuilt: RebuiltPartition) -> None:
    columns = ("status", "user_id", "applied_offset", "edits_offset", "profile_id", "release")
    for row in log.rows("recommendations", rebuilt.partition, columns=columns):
        if row["status"] == OK:
            head = rebuilt.user(row["user_id"]).head
            head.recommended = row["applied_offset"]
            head.recommended_edits = row["edits_offset"]
            head.recommended_profile = row["profile_id"] or ""
            head.recommended_release = row["release"]


def _take_profiles(log: SegmentLog, rebuilt: RebuiltPartition) -> None:
    columns = ("status", "key", "value")
    for row in log.rows("profiles", rebuilt.partition, columns=columns):
        if row["status"] == TOMBSTONE:
            rebuilt.user((row["key"] or b"").decode(errors="replace")).profile = None
        elif row["status"] == OK:
            profile = decode(row["value"], Profile)
            if not isinstance(profile, Rejected):
                _take_profile(rebuilt.user(profile.user_id), ProfileRecord.of(profile))


def _take_profile(user: User, record: ProfileRecord) -> None:
    if not is_current(user, record):
        return
    if user.profile is None or user.profile.newness() < record.newness():
        user.profile = record


def _records_of(user: User) -> Iterator[tuple[bytes, bytes]]:
    head = user.head
    if head.applied != NEVER or head.edits != NEVER or head.requests:
        for key, value in store(user, ()):
            assert value is not None, "a state written for the first time deletes nothing"
            yield key, value
    if user.profile is not None:
        yield profile_key(user.user_id), encode_profile(user.profile)


def compare(rebuilt: User, state: User) -> str | None:
    """How a state differs from the rebuilt one in what events and edits say; None: not at all."""
    if rebuilt.head.applied != state.head.applied:
        return f"applied up to {state.head.applied}; by the log {rebuilt.head.applied}"
    if rebuilt.history != state.history:
        only = {e.event_id for e in rebuilt.history} ^ {e.event_id for e in state.history}
        return f"histories differ in {len(only)} events: {', '.join(sorted(only)[:5])}"
    if (rebuilt.head.edits, rebuilt.head.applied_edits()) != (
        state.head.edits,
        state.head.applied_edits(),
    ):
        return f"edits applied up to {state.head.edits}; by the log {rebuilt.head.edits}"
    return None
