"""What a request's windows hold, section by section, in the form that prompts and checks use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from models.profile.negation import said_stems
from models.schemas import InteractionType, ProfileRequest, Section, WindowEntry
from models.settings import DAY_S
from models.text import TITLE_CHARS, clean, stem, words

REVIEW_CHARS: Final = 200
DAY_MS: Final = int(DAY_S * 1000)

LABELS: Final[Mapping[Section, str]] = {
    Section.STABLE: "Stable",
    Section.CURRENT: "Current",
    Section.NOW: "Now",
    Section.AVOIDS: "Avoids",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One event with the cleaned text of its item."""

    event_id: str
    item_id: str
    type: InteractionType
    timestamp: int  # event time, epoch ms
    text: str
    review: str
    rating: float | None
    stems: frozenset[str]  # of text and review, negated words marked


SectionEvents = Mapping[Section, tuple[Evidence, ...]]  # oldest first; every section is a key


class Forbidden:
    """The words and phrases that a user never wants to read, compared by stem."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._phrases = [phrase for entry in entries if (phrase := stemmed(entry))]

    def found_in(self, text: str) -> bool:
        """Whether `text` says any of them."""
        return bool(self._phrases) and self.found_in_stemmed(stemmed(text))

    def found_in_stemmed(self, said: str) -> bool:
        """The same of a text that went through `stemmed` before."""
        return any(phrase in said for phrase in self._phrases)


def stemmed(text: str) -> str:
    """Stems between spaces, so that a phrase is found as a substring at word borders."""
    found = " ".join(stem(word) for word in words(clean(text, 2_000)))
    return f" {found} " if found else ""


def section_events(request: ProfileRequest) -> SectionEvents:
    """The events of each section's window that may be spoken of.

    Items without a text and items that a forbidden word names are left out.
    """
    forbidden = Forbidden(request.edits.forbidden)
    windows = request.windows
    return {
        Section.STABLE: _spoken_of(windows.long, forbidden),
        Section.CURRENT: _spoken_of(windows.medium, forbidden),
        Section.NOW: _spoken_of(windows.short, forbidden),
        Section.AVOIDS: _spoken_of(windows.avoids, forbidden),
    }


def _spoken_of(entries: Iterable[WindowEntry], forbidden: Forbidden) -> tuple[Evidence, ...]:
    read = (_evidence(entry, forbidden) for entry in entries)
    return tuple(event for event in read if event.text and not forbidden.found_in(event.text))


def _evidence(entry: WindowEntry, forbidden: Forbidden) -> Evidence:
    text = clean(entry.text, TITLE_CHARS)
    review = clean(entry.review, REVIEW_CHARS) if entry.review else ""
    review = "" if forbidden.found_in(review) else review
    return Evidence(
        entry.event_id,
        entry.item_id,
        entry.type,
        entry.timestamp,
        text,
        review,
        entry.rating,
        said_stems(text) | said_stems(review),
    )


def lasting(events: SectionEvents) -> tuple[Evidence, ...]:
    """Events of the long window that tell of more than the current interests.

    Those before the medium window, and all of items that were had on two days or more.
    """
    current = {event.event_id for event in events[Section.CURRENT]}
    days: dict[str, set[int]] = {}
    for event in events[Section.STABLE]:
        days.setdefault(event.item_id, set()).add(event.timestamp // DAY_MS)
    return tuple(
        event
        for event in events[Section.STABLE]
        if event.event_id not in current or len(days[event.item_id]) > 1
    )


def own_events(section: Section, events: SectionEvents) -> tuple[Evidence, ...]:
    """The window of a section, or nothing while it tells no more than the next newer section.

    Windows nest: what was bought an hour ago is in all three, and is said once, under Now.
    """
    if section is Section.STABLE and not lasting(events):
        return ()
    if section is Section.CURRENT and len(events[section]) == len(events[Section.NOW]):
        return ()
    return events[section]
