"""Where sessions open in a user's log, and what the user did next.

A session opens at the first positive event of a new moment (a visit or basket). Its history is
what the tracker had applied then; its targets are the positives from that event on which are
still positives at the end of the split, so nothing from after the split is known in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Final

from models.schemas import InteractionType
from models.settings import WindowSettings
from models.training_settings import SessionSettings
from streams.windows import HOUR_MS, History, HistoryEntry, split_by_liking
from trainer.replaying import UserLog
from trainer.sessions import Session
from trainer.splits import Borders, Span, Split, leave_one_out

Knows = Callable[[str], bool]  # whether an item is in the catalogue

_TYPES: Final = tuple(InteractionType)
_DISLIKES: Final = frozenset({InteractionType.CANCEL, InteractionType.HIDE})
_key: Final = attrgetter("timestamp", "event_id")
_arrival: Final = attrgetter("timestamp", "offset")


def liked_before(log: UserLog, until: int, spec: WindowSettings) -> History:
    """Positives before `until` (event time, ms), by what is known then; oldest first."""
    known = sorted((entry for entry in log.entries if entry.timestamp < until), key=_key)
    return split_by_liking(tuple(known), spec)[0]


def temporal_sessions(
    log: UserLog, borders: Borders, settings: SessionSettings, spec: WindowSettings, knows: Knows
) -> Iterator[tuple[Split, Session]]:
    """The user's sessions, up to `per_user` of each split, the newest ones, newest first."""
    openings = _openings(log, settings, spec)
    for span in borders.spans():
        inside = [
            place for place in openings if span.since <= log.entries[place].timestamp < span.until
        ]
        for session in _newest_sessions(log, inside, span, settings, spec, knows):
            yield span.split, session


def _openings(log: UserLog, settings: SessionSettings, spec: WindowSettings) -> list[int]:
    """Places of the first positive event of each moment."""
    gap = int(settings.gap_hours * HOUR_MS)
    found: list[int] = []
    newest: int | None = None
    for place, entry in enumerate(log.entries):
        if _positive(entry, spec):
            if newest is None or entry.timestamp > newest + gap:
                found.append(place)
            newest = entry.timestamp if newest is None else max(newest, entry.timestamp)
    return found


def _positive(entry: HistoryEntry, spec: WindowSettings) -> bool:
    kind = _TYPES[entry.code]
    if kind is InteractionType.RATING:
        return entry.rating is None or entry.rating > spec.low_rating
    return kind not in _DISLIKES and kind is not InteractionType.IMPRESSION


def _newest_sessions(
    log: UserLog,
    openings: list[int],
    span: Span,
    settings: SessionSettings,
    spec: WindowSettings,
    knows: Knows,
) -> Iterator[Session]:
    if not openings:
        return
    liked = [e for e in liked_before(log, span.until, spec) if knows(e.item_id)]
    found = 0
    for place in reversed(openings):
        if found == settings.per_user:
            return
        session = _session(log, place, liked, settings, spec)
        if session is not None:
            found += 1
            yield session


def _session(
    log: UserLog,
    place: int,
    liked: list[HistoryEntry],
    settings: SessionSettings,
    spec: WindowSettings,
) -> Session | None:
    """The session opened by `entries[place]`; None without enough history or targets."""
    opening = log.entries[place]
    as_of = opening.timestamp - 1
    known = log.before(place, spec.history_cap)
    history = tuple(entry for entry in known if entry.timestamp <= as_of)
    if len(split_by_liking(history, spec)[0]) < settings.min_history:
        return None
    following = [e for e in liked if e.timestamp > as_of and e.offset >= opening.offset]
    targets = _first_of_each_item(sorted(following, key=_arrival))[: settings.horizon]
    if not targets:
        return None
    return Session(
        user_id=log.user_id,
        partition=log.partition,
        as_of=as_of,
        applied_offset=log.applied_before(place, spec.history_cap),
        history=history,
        targets=tuple(entry.item_id for entry in targets),
        target_time=targets[0].timestamp,
        last_target_time=max(entry.timestamp for entry in targets),
    )


def _first_of_each_item(entries: list[HistoryEntry]) -> list[HistoryEntry]:
    first: dict[str, HistoryEntry] = {}
    for entry in entries:
        first.setdefault(entry.item_id, entry)
    return list(first.values())


def left_out_sessions(
    log: UserLog, liked: History, settings: SessionSettings, spec: WindowSettings
) -> Iterator[tuple[Split, Session]]:
    """Leave-one-out sessions of `liked`, the user's whole sequence of known positives.

    `as_of` is not before the last history entry: where times have the resolution of a day, what
    comes next may carry the same time, and the position decides.
    """
    for cut in leave_one_out(len(liked), settings):
        history, targets = liked[: cut.start], liked[cut.start : cut.stop]
        yield (
            cut.split,
            Session(
                user_id=log.user_id,
                partition=log.partition,
                as_of=max(history[-1].timestamp, targets[0].timestamp - 1),
                applied_offset=max(entry.offset for entry in history),
                history=history[-spec.history_cap :],
                targets=tuple(dict.fromkeys(entry.item_id for entry in targets)),
                target_time=targets[0].timestamp,
                last_target_time=targets[-1].timestamp,
            ),
        )
