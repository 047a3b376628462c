"""Histories and their views: pure functions, no clock (architecture, properties 1 and 2).

A history holds the newest `cap` distinct interactions in the order (event time, event id). So
`advance` gives the same history whatever the order of arrival and however often an event is
sent: disorder and repetition need no further rule. Views are taken at a time `as_of`:
RecSysLLM's long, medium and short windows (methods §1.2), and the dislikes beside them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from models.identity import digest
from models.schemas import Interaction, InteractionType, WindowEntry, Windows
from models.settings import DAY_S, WindowSettings
from models.text import TITLE_CHARS, clean, json_size

REVIEW_CHARS: Final = 200  # of a review kept in state; the log keeps all of it
WINDOW_BYTES: Final = 700_000  # of a request; with its edits it fits into a million
ENTRY_BYTES: Final = 200 + 4 * TITLE_CHARS  # beside ids and review: names, numbers, item's text
DAY_MS: Final = int(DAY_S * 1000)
HOUR_MS: Final = 3_600_000

_TYPES: Final = tuple(InteractionType)
_CODE_OF: Final = {kind: code for code, kind in enumerate(_TYPES)}
_CANCEL: Final = _CODE_OF[InteractionType.CANCEL]
_HIDE: Final = _CODE_OF[InteractionType.HIDE]
_PURCHASE: Final = _CODE_OF[InteractionType.PURCHASE]
_RATING: Final = _CODE_OF[InteractionType.RATING]
_IMPRESSION: Final = _CODE_OF[InteractionType.IMPRESSION]


class HistoryEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One interaction as a history keeps it; encoded as an array to keep state small."""

    timestamp: int  # event time, epoch ms
    event_id: str
    item_id: str
    code: int  # position in InteractionType
    offset: int  # in its partition of topic interactions
    rating: float | None = None
    quantity: float | None = None
    review: str | None = None
    recommendation_id: str | None = None

    @property
    def type(self) -> InteractionType:
        """What was done."""
        return _TYPES[self.code]

    @property
    def key(self) -> tuple[int, str]:
        """Place in the history."""
        return self.timestamp, self.event_id


History = tuple[HistoryEntry, ...]
EMPTY: Final[History] = ()


class HistoryViews(NamedTuple):
    """The windows of one history at one time; each oldest first."""

    long: History
    medium: History
    short: History
    avoids: History


def kept(interaction: Interaction, spec: WindowSettings) -> bool:
    """Whether this type of interaction enters histories (its weight is above 0)."""
    return spec.weights[interaction.type.value] > 0


def entry_of(interaction: Interaction, offset: int) -> HistoryEntry:
    """What a history keeps of an interaction at `offset`."""
    review = clean(interaction.review, REVIEW_CHARS) if interaction.review else None
    return HistoryEntry(
        interaction.timestamp,
        interaction.event_id,
        interaction.item_id,
        _CODE_OF[interaction.type],
        offset,
        interaction.rating,
        interaction.quantity,
        review,
        interaction.recommendation_id,
    )


def advance(history: History, entry: HistoryEntry, cap: int) -> History:
    """The history with `entry` in its place; unchanged if known or older than a full history.

    An event id that is sent again with other content counts as known while it is held.
    """
    if entry.event_id in map(_event_id, history):
        return history
    if not history or entry.key > history[-1].key:
        return (*history, entry)[-cap:]
    place = bisect_left(history, entry.key, key=_key)
    if place == 0 and len(history) >= cap:
        return history
    return (*history[:place], entry, *history[place:])[-cap:]


def remembered(history: History, until: int | None, history_from: int = 0) -> History:
    """Without the entries up to event time `until`, and those of offsets before `history_from`."""
    return tuple(
        entry
        for entry in history
        if entry.offset >= history_from and (until is None or entry.timestamp > until)
    )


_event_id: Final = attrgetter("event_id")


def _key(entry: HistoryEntry) -> tuple[int, str]:
    return entry.timestamp, entry.event_id


def views(history: History, as_of: int, spec: WindowSettings) -> HistoryViews:
    """Long, medium, short and avoids at `as_of` (epoch ms); events after it are not seen."""
    seen = tuple(entry for entry in history if entry.timestamp <= as_of)
    liked, avoided = split_by_liking(seen, spec)
    since = as_of - int(spec.long_days * DAY_MS)
    return HistoryViews(
        long=_within(liked, since, spec.long_cap),
        medium=_within(liked, as_of - int(spec.medium_days * DAY_MS), spec.medium_cap),
        short=_within(liked, as_of - int(spec.short_hours * HOUR_MS), spec.short_cap),
        avoids=_within(avoided, since, spec.avoids_cap),
    )


def _within(entries: History, after: int, cap: int) -> History:
    return tuple(entry for entry in entries if entry.timestamp > after)[-cap:]


def split_by_liking(history: History, spec: WindowSettings) -> tuple[History, History]:
    """(positives, dislikes) of a history.

    A cancel is matched to the latest earlier purchase of its item: the pair is one dislike and
    no positive. A later purchase of the same item takes the dislike back.
    """
    cancelled: set[int] = set()
    open_purchases: dict[str, list[int]] = {}
    disliked_at: dict[int, str] = {}
    for place, entry in enumerate(history):
        if entry.code == _PURCHASE:
            open_purchases.setdefault(entry.item_id, []).append(place)
        elif entry.code == _CANCEL:
            if open_purchases.get(entry.item_id):
                cancelled.add(open_purchases[entry.item_id].pop())
            disliked_at[place] = entry.item_id
        elif entry.code == _HIDE or _low_rating(entry, spec):
            disliked_at[place] = entry.item_id
    avoided = tuple(
        history[place]
        for place, item in disliked_at.items()
        if not any(bought > place for bought in open_purchases.get(item, ()))
    )
    liked = tuple(
        entry
        for place, entry in enumerate(history)
        if place not in cancelled and place not in disliked_at and entry.code != _IMPRESSION
    )
    return liked, avoided


def _low_rating(entry: HistoryEntry, spec: WindowSettings) -> bool:
    return entry.code == _RATING and entry.rating is not None and entry.rating <= spec.low_rating


def fitting(found: HistoryViews) -> HistoryViews:
    """The views as far as a request has room; the oldest entries of the longer ones go first.

    By what histories hold alone: a replay does not know the texts, and must leave out the same.
    """
    room, kept = WINDOW_BYTES, {}
    for name in ("short", "avoids", "medium", "long"):
        entries, count = getattr(found, name), 0
        for entry in reversed(entries):
            room -= _size(entry)
            if room < 0:
                break
            count += 1
        kept[name] = entries[len(entries) - count :]
    return HistoryViews(**kept)


def _size(entry: HistoryEntry) -> int:
    texts = (entry.event_id, entry.item_id, entry.review or "")
    return ENTRY_BYTES + sum(map(json_size, texts))


def to_windows(found: HistoryViews, text_of: Callable[[str], str]) -> Windows:
    """The views as a request carries them, with each item's text as `text_of` knows it now."""
    found = fitting(found)

    def entries(history: Iterable[HistoryEntry]) -> tuple[WindowEntry, ...]:
        return tuple(window_entry(entry, text_of(entry.item_id)) for entry in history)

    return Windows(
        long=entries(found.long),
        medium=entries(found.medium),
        short=entries(found.short),
        avoids=entries(found.avoids),
    )


def window_entry(entry: HistoryEntry, text: str) -> WindowEntry:
    """One history entry with its item's text."""
    return WindowEntry(
        event_id=entry.event_id,
        item_id=entry.item_id,
        type=entry.type,
        timestamp=entry.timestamp,
        text=text,
        rating=entry.rating,
        review=entry.review,
        quantity=entry.quantity,
    )


def windows_hash(windows: Windows) -> str:
    """sha256 over the windows with their texts; what parity compares."""
    return digest(windows.model_dump(mode="json"), chars=64)
