"""Where sessions open in a user's log, and what the user did next.

A session opens at the first positive event of a new moment (a visit or basket). Its history is
what the tracker had applied then; its targets are the positives from that event on which are
still positives at the end of the split, so nothing from after the split is known in it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

from models.schemas import InteractionType
from models.settings import WindowSettings
from models.training_settings import SessionSettings
from streams.windows import HOUR_MS, History, HistoryEntry, split_by_liking
from trainer.data.point_in_time import UserLog
from trainer.data.sessions import Session
from trainer.data.splits import Borders, Split, leave_one_out

Knows = Callable[[str], bool]  # whether an item is in the catalogue

_TYPES: Final = tuple(InteractionType)
_NO_POSITIVES: Final = frozenset(
    {InteractionType.CANCEL, InteractionType.HIDE, InteractionType.IMPRESSION}
)
_key: Final = attrgetter("timestamp", "event_id")
_arrival: Final = attrgetter("timestamp", "offset")


class Positives:
    """A user's positives as they were known at the end of each split."""

    def __init__(self, log: UserLog, spec: WindowSettings) -> None:
        self.log, self.spec = log, spec
        self._ordered = sorted(log.entries, key=_key)
        self._times = [entry.timestamp for entry in self._ordered]
        self._disliked = any(_disliking(entry, spec) for entry in self._ordered)
        self._known: dict[int, History] = {}

    def before(self, until: int) -> History:
        """Positives before `until` (event time, ms), by what is known then; oldest first."""
        count = bisect_left(self._times, until)
        if count not in self._known:
            known = tuple(self._ordered[:count])
            self._known[count] = split_by_liking(known, self.spec)[0] if self._disliked else known
        return self._known[count]


def temporal_sessions(
    positives: Positives, borders: Borders, settings: SessionSettings, knows: Knows
) -> Iterator[tuple[Split, Session]]:
    """The user's sessions, up to `per_user` of each split, the newest ones, newest first."""
    log = positives.log
    openings = _openings(log, settings, positives.spec)
    for span in borders.spans():
        inside = [
            at for at in openings if span.since <= log.entries[at.place].timestamp < span.until
        ]
        if inside:
            following = _Following(positives.before(span.until), settings.horizon, knows)
            found = (
                _session(log, opening, following, settings, positives.spec)
                for opening in reversed(inside)
            )
            for session in islice(filter(None, found), settings.per_user):
                yield span.split, session


class _Opening(NamedTuple):
    place: int  # in the user's entries
    surely_liked: int  # at least so many positives were known before it


def _openings(log: UserLog, settings: SessionSettings, spec: WindowSettings) -> list[_Opening]:
    """The first positive event of each moment."""
    gap = int(settings.gap_hours * HOUR_MS)
    found: list[_Opening] = []
    newest: int | None = None
    liked = 0  # a dislike takes back at most one positive
    for place, entry in enumerate(log.entries):
        if _disliking(entry, spec):
            liked -= 1
            continue
        if newest is None or entry.timestamp > newest + gap:
            whole = place <= spec.history_cap  # nothing has left the history
            found.append(_Opening(place, liked if whole else 0))
        newest = entry.timestamp if newest is None else max(newest, entry.timestamp)
        liked += 1
    return found


def _disliking(entry: HistoryEntry, spec: WindowSettings) -> bool:
    kind = _TYPES[entry.code]
    if kind is InteractionType.RATING:
        return entry.rating is not None and entry.rating <= spec.low_rating
    return kind in _NO_POSITIVES


class _Following:
    """What was liked next: the first `horizon` distinct known items after a moment."""

    def __init__(self, liked: History, horizon: int, knows: Knows) -> None:
        self._liked = sorted(liked, key=_arrival)
        self._times = [entry.timestamp for entry in self._liked]
        self._horizon, self._knows = horizon, knows

    def after(self, opening: HistoryEntry) -> list[HistoryEntry]:
        """From `opening` on, in order of time, each item once."""
        first: dict[str, HistoryEntry] = {}
        for entry in islice(self._liked, bisect_left(self._times, opening.timestamp), None):
            if entry.offset >= opening.offset and self._knows(entry.item_id):
                first.setdefault(entry.item_id, entry)
            if len(first) == self._horizon:
                break
        return list(first.values())


def _session(
    log: UserLog,
    opening: _Opening,
    following: _Following,
    settings: SessionSettings,
    spec: WindowSettings,
) -> Session | None:
    """The session of one opening; None without enough history or targets."""
    entry = log.entries[opening.place]
    targets = following.after(entry)
    if not targets:
        return None
    as_of = entry.timestamp - 1
    known = log.before(opening.place, spec.history_cap)
    history = tuple(entry for entry in known if entry.timestamp <= as_of)
    enough = settings.min_history
    if opening.surely_liked < enough and len(split_by_liking(history, spec)[0]) < enough:
        return None
    return Session(
        user_id=log.user_id,
        partition=log.partition,
        as_of=as_of,
        applied_offset=log.applied_before(opening.place, spec.history_cap),
        history=history,
        targets=tuple(entry.item_id for entry in targets),
        target_time=targets[0].timestamp,
        last_target_time=max(entry.timestamp for entry in targets),
        last_target_offset=max(entry.offset for entry in targets),
    )


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
                last_target_offset=max(entry.offset for entry in targets),
            ),
        )
