"""What events do to a user's state: pure functions over one user at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Final, NamedTuple

from models.schemas import Interaction, ProfileEdit
from models.settings import WindowSettings
from streams.codec import is_time
from streams.partition_clock import FAR_AHEAD_MS, PartitionClock
from streams.tracker.state import (
    KNOWN_EDITS,
    Key,
    ProfileRecord,
    User,
    edit_mark,
    newest_edits,
)
from streams.triggers import NEVER
from streams.windows import EMPTY, advance, entry_of, kept, remembered

MAX_EDITS: Final = 50  # sentences pinned and words forbidden: a head must fit into one record


class Arrival(NamedTuple):
    """A valid interaction and where it stood in its partition."""

    interaction: Interaction
    offset: int
    kafka_time: int  # epoch ms
    gained: int = 0  # by the partition until then, ms


class Passing(NamedTuple):
    """A partition's clock after some arrivals, and these with what it had gained."""

    clock: PartitionClock
    arrivals: list[Arrival]
    far_ahead: list[tuple[Arrival, int]]  # with the event time of the bulk then


def pass_time(
    clock: PartitionClock,
    arrivals: Iterable[Arrival],
    user_of: Callable[[str], User],
    spec: WindowSettings,
) -> Passing:
    """Move a partition's clock by arrivals in order of offset, before they are applied."""
    timed: list[Arrival] = []
    far_ahead: list[tuple[Arrival, int]] = []
    visited: dict[str, set[str]] = {}  # user → event ids of the visits among the arrivals
    for arrival in arrivals:
        one, kafka_time = arrival.interaction, arrival.kafka_time
        if one.timestamp - clock.counted(kafka_time) > FAR_AHEAD_MS and clock.visits:
            bulk = clock.bulk(kafka_time)
            if one.timestamp - bulk > FAR_AHEAD_MS:
                far_ahead.append((arrival, bulk))
        if clock.would_visit(one.user_id):
            user, here = user_of(one.user_id), visited.setdefault(one.user_id, set())
            if one.event_id not in here and changes_history(user, arrival, spec):
                returned = bool(here) or user.head.applied != NEVER
                clock = clock.see(one.user_id, one.timestamp, kafka_time, returned=returned)
                here.add(one.event_id)
        timed.append(arrival._replace(gained=clock.gained))
    return Passing(clock, timed, far_ahead)


def changes_history(user: User, arrival: Arrival, spec: WindowSettings) -> bool:
    """Whether the history would be another with it; one that is sent again must move no clock."""
    interaction, head, history = arrival.interaction, user.head, user.history
    return (
        kept(interaction, spec)
        and arrival.offset > head.applied
        and arrival.offset >= head.history_from
        and interaction.timestamp > head.forgotten_until
        and advance(history, entry_of(interaction, arrival.offset), spec.history_cap) is not history
    )


@contextmanager
def whole_or_not(user: User) -> Iterator[None]:
    """What is done to the user inside is undone if it raises: no state is half applied."""
    head, history, profile = copy(user.head), user.history, user.profile
    try:
        yield
    except BaseException:
        user.head, user.history, user.profile = head, history, profile
        raise


def apply_interactions(
    user: User,
    arrivals: Iterable[Arrival],
    spec: WindowSettings,
    outcomes: Counter[tuple[str, str]],
) -> list[Key]:
    """Apply arrivals in order of offset; returns the keys of the entries that came in.

    Counts each arrival under (type, outcome): applied, duplicate, forgotten, ignored or too_old.
    """
    inserted: list[Key] = []
    for arrival in arrivals:
        outcome = _apply(user, arrival, spec, inserted)
        outcomes[arrival.interaction.type.value, outcome] += 1
    return inserted


def _apply(user: User, arrival: Arrival, spec: WindowSettings, inserted: list[Key]) -> str:
    interaction, head = arrival.interaction, user.head
    if not kept(interaction, spec):
        return "ignored"
    if arrival.offset <= head.applied or arrival.offset < head.history_from:
        return "duplicate"
    if _is_forgotten(user, arrival):
        return "forgotten"
    entry = entry_of(interaction, arrival.offset)
    history = advance(user.history, entry, spec.history_cap)
    if history is user.history:
        known = any(entry.event_id == old.event_id for old in history)
        return "duplicate" if known else "too_old"
    if interaction.timestamp > user.newest:
        head.gained = arrival.gained
    user.history = history
    head.applied, head.applied_time = arrival.offset, arrival.kafka_time
    head.evidence += spec.weights[interaction.type.value]
    lead = interaction.timestamp - arrival.kafka_time
    head.lead = lead if head.lead is None else max(head.lead, lead)
    inserted.append(entry.key)
    return "applied"


def _is_forgotten(user: User, arrival: Arrival) -> bool:
    """Whether the user has asked to be forgotten since; see streams/event_log/views.py.

    An arrival that Kafka took before the wish is here after it where the two topics were not read
    in step: it moves `forgotten_until` as it would have done in time.
    """
    head, happened = user.head, arrival.interaction.timestamp
    if arrival.kafka_time <= head.forgotten_at and happened > head.forgotten_until:
        head.forgotten_until = happened
        user.history = remembered(user.history, happened)
    return happened <= head.forgotten_until


def apply_edit(user: User, edit: ProfileEdit, offset: int, kafka_time: int = NEVER) -> bool:
    """Fold one edit, taken by Kafka at `kafka_time`, into the state. False: it was applied before.

    One that is sent again under its id would undo what came between: the first counts. `forget`
    empties history and profile; what happened up to then stays forgotten, however late and
    however often it is sent.
    """
    head, mark = user.head, edit_mark(edit)
    if offset <= head.edits or mark in head.known_edits:
        return False
    head.edits = offset
    head.known_edits = (*head.known_edits, mark)[-KNOWN_EDITS:]
    match edit.action:
        case "pin" if edit.text:
            head.pinned = _with(head.pinned, edit.text)
        case "unpin":
            head.pinned = tuple(text for text in head.pinned if text != edit.text)
        case "forbid" if edit.text:
            head.forbidden = _with(head.forbidden, edit.text)
        case "allow":
            head.forbidden = tuple(text for text in head.forbidden if text != edit.text)
        case "replace" if edit.section:
            others = tuple(pair for pair in head.replaced if pair[0] != edit.section.value)
            head.replaced = (*others, (edit.section.value, edit.text)) if edit.text else others
        case "forget":
            _forget(user, edit, kafka_time)
    return True


def _forget(user: User, edit: ProfileEdit, kafka_time: int) -> None:
    head, made = user.head, edit.timestamp
    if is_time(kafka_time):  # else it was logged before such edits were refused
        made = min(made, kafka_time)
        head.forgotten_at = max(head.forgotten_at, kafka_time)
    head.forgotten_until = max(head.forgotten_until, made, user.newest)
    head.forgotten_edits = head.edits
    head.history_from = head.applied + 1
    user.history, user.profile = EMPTY, None
    head.pinned, head.forbidden, head.replaced = (), (), ()


def is_current(user: User, profile: ProfileRecord) -> bool:
    """Whether a profile was asked for after all that the user wants to be forgotten."""
    return profile.edits >= user.head.forgotten_edits


def _with(texts: tuple[str, ...], text: str) -> tuple[str, ...]:
    """With one more; of more than MAX_EDITS, or than there is room for, the newest."""
    return texts if text in texts else newest_edits((*texts, text)[-MAX_EDITS:])
