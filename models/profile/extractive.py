"""Sentences built from the events themselves: true by construction, plain in style.

They stand in where the model's sentences fail the grounding check or no model answered. Themes
are word pairs and words that several different items share; examples and lists name items.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from models.profile.evidence import Evidence
from models.profile.grounding import sentence
from models.profile.negation import marked
from models.profile.words import COLOUR_WORDS, FUNCTION_WORDS, PACKING_WORDS
from models.schemas import InteractionType, Origin, Section, Sentence
from models.text import WORD, shorten, stem, stems, tells, words

MAX_THEMES: Final = 3
MAX_ITEMS: Final = 3
ITEM_CHARS: Final = 60
OFTEN: Final = 3  # had this many times, an item is worth a sentence of its own
# A shared pair of words tells more than a shared word, three more than two.
_LENGTH_WEIGHT: Final = {1: 0.4, 2: 1.0, 3: 1.2}

_LEAST_ITEMS: Final = {1: 3, 2: 2, 3: 2}  # that share it; two may share one word by chance

_TOKEN: Final = re.compile(rf"{WORD}(?:[-'’]{WORD})*|[^\w\s'’-]")

_VERBS: Final[Mapping[InteractionType, tuple[str, str, str]]] = {
    InteractionType.PURCHASE: ("Often buys", "Lately buys", "Just bought"),
    InteractionType.RATING: ("Often rates", "Lately rated", "Just rated"),
    InteractionType.CART: ("Often considers", "Lately considers", "Just put in the cart"),
    InteractionType.CLICK: ("Often looks at", "Lately looks at", "Just looked at"),
    InteractionType.VIEW: ("Often looks at", "Lately looks at", "Just looked at"),
}
# For stable taste that rests on fewer events than OFTEN.
_ONCE: Final[Mapping[InteractionType, str]] = {
    InteractionType.PURCHASE: "Bought",
    InteractionType.RATING: "Rated",
    InteractionType.CART: "Considered",
    InteractionType.CLICK: "Looked at",
    InteractionType.VIEW: "Looked at",
}
_TENSE: Final = {Section.STABLE: 0, Section.CURRENT: 1, Section.NOW: 2}
_DISLIKES: Final = (
    (InteractionType.CANCEL, "Sent back"),
    (InteractionType.HIDE, "Hid"),
    (InteractionType.RATING, "Gave few stars to"),
)


@dataclass(frozen=True, slots=True)
class Theme:
    """Words that the texts of several items share."""

    text: str
    events: tuple[Evidence, ...]  # newest first


def extractive_sentences(section: Section, events: Sequence[Evidence]) -> Iterator[Sentence]:
    """Sentences about a section's events (oldest first), the most telling one first."""
    newest_first = tuple(reversed(events))
    if section is Section.AVOIDS:
        yield from _dislikes(newest_first)
    elif section is Section.NOW:
        yield from _listing(_verb(section, newest_first), newest_first)
    else:
        yield from _tastes(section, newest_first)


def _tastes(section: Section, events: Sequence[Evidence]) -> Iterator[Sentence]:
    verb = _verb(section, events)
    found = themes(events)
    if not found:
        yield from _listing(verb, _by_frequency(events))
        return
    named = [_named(theme.events[0]) for theme in found[:2]]
    text = f"{verb} {_series(theme.text for theme in found)}, such as {_series(named)}"
    yield sentence(text, [theme.events for theme in found], Origin.EXTRACTIVE)
    often = [group for group in _groups(events) if len(group) >= OFTEN][:MAX_ITEMS]
    if section is Section.STABLE and often:
        counts = _series(f"{_named(group[0])} ({len(group)} times)" for group in often)
        yield sentence(f"Came back for {counts}", often, Origin.EXTRACTIVE)


def _dislikes(events: Sequence[Evidence]) -> Iterator[Sentence]:
    for kind, verb in _DISLIKES:
        yield from _listing(verb, [event for event in events if event.type is kind])


def _listing(verb: str, events: Sequence[Evidence]) -> Iterator[Sentence]:
    groups = _distinct(events)[:MAX_ITEMS]
    if groups:
        text = f"{verb} {_series(_named(group[0]) for group in groups)}"
        yield sentence(text, groups, Origin.EXTRACTIVE)


def themes(events: Sequence[Evidence]) -> list[Theme]:
    """At most three themes of `events` (newest first) that two or more items share.

    Chosen greedily: each next theme is the one that covers most of the items not yet covered.
    """
    phrases = {group[0].item_id: _phrases(group[0].text) for group in _distinct(events)}
    carriers: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for item, found in phrases.items():
        for phrase in found:
            carriers[phrase].append(item)
    open_items = set(phrases)
    chosen: list[Theme] = []
    while len(chosen) < MAX_THEMES and (best := _best(carriers, open_items)):
        open_items.difference_update(carriers[best])
        surface = Counter(phrases[item][best] for item in carriers[best])
        text = min(surface, key=lambda said: (-surface[said], said))
        items = set(carriers[best])
        chosen.append(Theme(text, tuple(event for event in events if event.item_id in items)))
    return chosen


def _best(
    carriers: Mapping[tuple[str, ...], Sequence[str]], open_items: set[str]
) -> tuple[str, ...] | None:
    def worth(phrase: tuple[str, ...]) -> float:
        covered = sum(item in open_items for item in carriers[phrase])
        return covered * _LENGTH_WEIGHT[len(phrase)] if covered >= _LEAST_ITEMS[len(phrase)] else 0

    best = min(carriers, key=lambda phrase: (-worth(phrase), phrase), default=None)
    return best if best and worth(best) > 0 else None


def _phrases(text: str) -> dict[tuple[str, ...], str]:
    """Two or three neighbouring telling words, or the last of a run, by stems → as written.

    The last word of a run is most often the noun: "sign" of "cook with wine metal sign".
    """
    found: dict[tuple[str, ...], str] = {}
    borne_out = stems(marked(text))
    for run in _runs(text):
        for size in _LENGTH_WEIGHT:
            for start in range(len(run) - size + 1):
                said = run[start : start + size]
                if (
                    said[-1] not in COLOUR_WORDS
                    and (size > 1 or said == run[-1:])
                    and stems(marked(" ".join(said))) <= borne_out  # no "sugar" of "no sugar"
                ):
                    key = tuple(" ".join(stem(part) for part in words(word)) for word in said)
                    found.setdefault(key, " ".join(said))
    return found


def _runs(text: str) -> list[list[str]]:
    """Telling words between punctuation, counts and function words."""
    runs: list[list[str]] = [[]]
    for token in _TOKEN.findall(text.casefold()):
        if _telling(token):
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return runs


def _telling(token: str) -> bool:
    return tells(token) and not {*words(token)} <= (FUNCTION_WORDS | PACKING_WORDS)


def _verb(section: Section, events: Sequence[Evidence]) -> str:
    types = Counter(event.type for event in events if event.type in _VERBS)
    kind = max(_VERBS, key=lambda kind: types[kind])  # the first of equals
    if section is Section.STABLE and types[kind] < OFTEN:
        return _ONCE[kind]
    return _VERBS[kind][_TENSE[section]]


def _distinct(events: Iterable[Evidence]) -> list[list[Evidence]]:
    """Events grouped by item, in order of first appearance; one group per text."""
    groups: dict[str, list[Evidence]] = {}
    for event in events:
        groups.setdefault(event.text, []).append(event)
    return list(groups.values())


def _groups(events: Sequence[Evidence]) -> list[list[Evidence]]:
    """Grouped by item, the most frequent first, then the newest."""
    return sorted(_distinct(events), key=lambda group: -len(group))


def _by_frequency(events: Sequence[Evidence]) -> list[Evidence]:
    return [event for group in _groups(events) for event in group]


def _named(event: Evidence) -> str:
    """An item's text inside a sentence: short, and small at the start if sentence case."""
    head, _, _ = event.text.partition(", ")  # sizes and categories follow the comma
    text = shorten(head if head.count(" ") > 1 else event.text, ITEM_CHARS).rstrip(",;:. ")
    return text[:1].lower() + text[1:] if text[1:] == text[1:].lower() else text


def _series(parts: Iterable[str]) -> str:
    listed = list(dict.fromkeys(parts))
    return " and ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
