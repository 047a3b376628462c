"""Profile request → prompt: a pure function, byte for byte (architecture, property 3).

An item is shown once, under the newest section that it belongs to. Whatever a title says, it
stays one shortened entry of a list: `models.text.clean` leaves no line break and no chat markup
in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from models.profile.evidence import LABELS, Evidence, SectionEvents, lasting, section_events
from models.schemas import ProfileRequest, Section
from models.text import shorten

PROMPT_VERSION: Final = "lines-1"  # names everything below, the chat markup included

ITEMS_PER_SECTION: Final = 4
ITEM_CHARS: Final = 72
REVIEW_CHARS: Final = 60
# Tokens that the item lines may cost by `_cost`, which guesses high: with the 200 tokens of
# the rest, ordinary titles stay below 700 tokens and hostile ones near 1,000.
LIST_COST: Final = 760

_LETTER: Final = re.compile(r"[A-Za-z ]")

# ChatML, as SmolLM2 and Qwen were trained on. The answer is begun for the model, so that it
# continues a line in place of opening a conversation.
_OPEN: Final = "<|im_start|>"
_CLOSE: Final = "<|im_end|>"

# Measured on the untrained SmolLM2-135M (docs/profiles.md): few items, lines in the form of the
# answer, no counts and no system turn give the most statements that are true.
_TASK: Final = (
    "Shorten every phrase of this list to its two or three main words. "
    "Write one line for each heading ({headings}) and keep the semicolons."
)


def render(request: ProfileRequest) -> str:
    """The prompt of `request`, ending in the first heading of the answer.

    The same request gives the same bytes, on any machine. At most about 1,000 tokens.
    """
    shown = shown_items(section_events(request))
    task = _TASK.format(headings=", ".join(LABELS[section] for section in shown))
    asked = f"{_OPEN}user\n{_listed(shown)}\n\n{task}{_CLOSE}\n"
    return f"{asked}{_OPEN}assistant\n{LABELS[_first(shown)]}:"


def list_of(request: ProfileRequest) -> str:
    """The list of items in the prompt of `request`."""
    return _listed(shown_items(section_events(request)))


def first_section(events: SectionEvents) -> Section:
    """The section whose heading ends the prompt: what the model writes first belongs to it."""
    return _first(shown_items(events))


def _first(shown: Mapping[Section, tuple[str, ...]]) -> Section:
    return next(iter(shown), Section.STABLE)


def shown_items(events: SectionEvents) -> dict[Section, tuple[str, ...]]:
    """The list by section, in the order of the answer; sections with nothing to show are absent.

    Now and Current hold the newest items of their windows, Stable the most frequent of those
    that came back on another day or are older than Current; each oldest or most frequent first.
    """
    return {section: tuple(map(_entry, shown)) for section, shown in shown_events(events).items()}


def shown_events(events: SectionEvents) -> dict[Section, tuple[Evidence, ...]]:
    """The events behind `shown_items`, one for each item of the list, in its order."""
    times = Counter(event.item_id for event in events[Section.STABLE])
    taken: set[str] = set()
    chosen = {
        Section.NOW: _newest(events[Section.NOW], taken),
        Section.CURRENT: _newest(events[Section.CURRENT], taken),
        Section.STABLE: _most_frequent(lasting(events), times, taken),
        Section.AVOIDS: _newest(events[Section.AVOIDS], set()),
    }
    return _within_cost({section: chosen[section] for section in Section if chosen[section]})


def _newest(events: tuple[Evidence, ...], taken: set[str]) -> list[Evidence]:
    found: dict[str, Evidence] = {}
    for event in reversed(events):
        if event.item_id not in taken:
            found.setdefault(event.item_id, event)
    chosen = list(islice(found.values(), ITEMS_PER_SECTION))
    taken.update(event.item_id for event in chosen)
    return chosen[::-1]


def _most_frequent(
    events: Iterable[Evidence], times: Counter[str], taken: set[str]
) -> list[Evidence]:
    newest = {event.item_id: event for event in events if event.item_id not in taken}
    ranked = sorted(newest.values(), key=lambda e: (-times[e.item_id], -e.timestamp, e.item_id))
    return ranked[:ITEMS_PER_SECTION]


def _entry(event: Evidence) -> str:
    review = f" ({shorten(event.review, REVIEW_CHARS)})" if event.review else ""
    return f"{shorten(event.text, ITEM_CHARS)}{review}".replace(";", ",")


def _within_cost(
    chosen: dict[Section, list[Evidence]],
) -> dict[Section, tuple[Evidence, ...]]:
    """Drop the last item of the costliest section until the whole list is cheap enough."""
    cost = {section: sum(_cost(_entry(e)) for e in shown) for section, shown in chosen.items()}
    while sum(cost.values()) > LIST_COST:
        costliest = max(cost, key=lambda section: cost[section])
        cost[costliest] -= _cost(_entry(chosen[costliest].pop()))
    return {section: tuple(shown) for section, shown in chosen.items() if shown}


def _cost(text: str) -> float:
    """A high guess at tokens: .4 per ASCII letter or space, 1 per other UTF-8 byte."""
    letters = len(_LETTER.findall(text))
    return 0.4 * letters + (len(text.encode()) - letters)


def _listed(shown: Mapping[Section, tuple[str, ...]]) -> str:
    return "\n".join(f"{LABELS[section]}: {'; '.join(items)}" for section, items in shown.items())
