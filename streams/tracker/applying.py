"""What events do to a user's state: pure functions over one user at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from models.schemas import Interaction, ProfileEdit
from models.settings import WindowSettings
from streams.tracker.state import Key, ProfileRecord, User
from streams.triggers import NEVER
from streams.windows import EMPTY, advance, entry_of, kept, remembered


class Arrival(NamedTuple):
    """A valid interaction and where it stood in its partition."""

    interaction: Interaction
    offset: int
    kafka_time: int  # epoch ms


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
    user.history = history
    head.applied, head.applied_time = arrival.offset, arrival.kafka_time
    head.evidence += spec.weights[interaction.type.value]
    inserted.append(entry.key)
    return "applied"


def _is_forgotten(user: User, arrival: Arrival) -> bool:
    """Whether the user has asked to be forgotten since; see streams/event_log/wishes.py.

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

    `forget` empties history and profile; what happened up to then stays forgotten, however late
    and however often it is sent.
    """
    head = user.head
    if offset <= head.edits:
        return False
    head.edits = offset
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
    head = user.head
    made = edit.timestamp if kafka_time == NEVER else min(edit.timestamp, kafka_time)
    head.forgotten_until = max(head.forgotten_until, made, user.newest)
    head.forgotten_at = max(head.forgotten_at, kafka_time)
    head.forgotten_edits = head.edits
    head.history_from = head.applied + 1
    user.history, user.profile = EMPTY, None
    head.pinned, head.forbidden, head.replaced = (), (), ()


def is_current(user: User, profile: ProfileRecord) -> bool:
    """Whether a profile was asked for after all that the user wants to be forgotten."""
    return profile.edits >= user.head.forgotten_edits


def _with(texts: tuple[str, ...], text: str) -> tuple[str, ...]:
    return texts if text in texts else (*texts, text)
