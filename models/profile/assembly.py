"""The model's answer and the events → a profile in which every sentence rests on something.

Per section: what the user wrote stands first and unchecked; then the model's statements that
pass the grounding check; then, where one failed or none was made, sentences built from the
events. The whole is cut to its token budget so that every section keeps its first sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from models.profile.budget import Draft, within_tokens
from models.profile.evidence import Forbidden, SectionEvents, own_events, section_events
from models.profile.extractive import extractive_sentences
from models.profile.grounding import MAX_EVIDENCE, content_stems, grounded, statements
from models.profile.prompts import first_section
from models.schemas import (
    Origin,
    ProfileRequest,
    Section,
    Sections,
    Sentence,
    SentenceCounts,
    WindowEntry,
)
from models.text import TITLE_CHARS, clean

MAX_TOKENS: Final = 256
MAX_MODEL_SENTENCES: Final = 4  # per section; more of them read like the list itself
MAX_EXTRACTIVE: Final = 2  # per section without a model sentence; else 1
USER_CHARS: Final = 2_000  # of one pinned or replaced text

HEADINGS: Final[Mapping[Section, str]] = {
    Section.STABLE: "Stable taste",
    Section.CURRENT: "Current interests",
    Section.NOW: "Right now",
    Section.AVOIDS: "Avoids",
}

CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Composed:
    """A finished profile: sentences, the same as one text, and how the check went."""

    sections: Sections
    text: str
    counts: SentenceCounts


def compose(
    request: ProfileRequest,
    completion_text: str | None,
    count_tokens: CountTokens,
    max_tokens: int = MAX_TOKENS,
    *,
    stand_ins: bool = True,
) -> Composed:
    """Check the model's continuation of `render(request)`; None if no model answered.

    Never raises on what a model may write. The text has at most `max_tokens` by
    `count_tokens` and holds exactly the sentences of `sections`. Without `stand_ins` nothing
    takes the place of what failed: the profile of a model that is to answer for its own words.
    """
    forbidden = Forbidden(request.edits.forbidden)
    events = section_events(request)
    written, rejected = _model_sentences(request, completion_text or "", events, forbidden)
    draft: Draft = {
        section: [
            *_own(section, request, written[section], forbidden),
            *islice(
                _built(section, request, events, forbidden),
                _missing(written[section], rejected[section]) if stand_ins else 0,
            ),
        ]
        for section in Section
    }
    if stand_ins and not any(draft.values()):
        draft = _undescribed(request)
    kept = within_tokens(draft, lambda part: count_tokens(_text(part, forbidden)), max_tokens)
    return Composed(
        Sections(**{section.value: tuple(kept[section]) for section in Section}),
        _text(kept, forbidden),
        _counts(kept, sum(rejected.values())),
    )


def _model_sentences(
    request: ProfileRequest, answer: str, events: SectionEvents, forbidden: Forbidden
) -> tuple[dict[Section, list[Sentence]], dict[Section, int]]:
    """(supported sentences, number of rejected ones) by section; a repetition is neither."""
    supported: dict[Section, list[Sentence]] = {section: [] for section in Section}
    rejected = dict.fromkeys(Section, 0)
    said: set[tuple[bool, frozenset[str]]] = set()
    for section, statement in statements(answer, first_section(events)):
        key = (section is Section.AVOIDS, content_stems(statement, section))
        if key in said or section in _replaced(request):
            continue
        said.add(key)
        found = grounded(statement, section, events[section])
        if found is None or forbidden.found_in(statement):
            rejected[section] += 1
        elif len(supported[section]) < MAX_MODEL_SENTENCES:
            supported[section].append(found)
    return supported, rejected


def _replaced(request: ProfileRequest) -> Mapping[str, str]:
    return dict(request.edits.replaced)


def _own(
    section: Section, request: ProfileRequest, written: Sequence[Sentence], forbidden: Forbidden
) -> list[Sentence]:
    """What the user wrote, and behind it the model's sentences unless it takes their place."""
    own = [_user_sentence(text) for text in _user_texts(section, request)]
    own = [sentence for sentence in own if sentence.text and not forbidden.found_in(sentence.text)]
    return own if section in _replaced(request) else [*own, *written]


def _missing(written: Sequence[Sentence], rejected: int) -> int:
    """How many sentences are to stand in for those that failed or were never made."""
    if not written:
        return MAX_EXTRACTIVE
    return 1 if rejected else 0


def _built(
    section: Section, request: ProfileRequest, events: SectionEvents, forbidden: Forbidden
) -> Iterator[Sentence]:
    """Sentences from the events alone; none where the user wrote the section."""
    if section in _replaced(request):
        return iter(())
    return (
        sentence
        for sentence in extractive_sentences(section, own_events(section, events))
        if not forbidden.found_in(sentence.text)
    )


def _user_texts(section: Section, request: ProfileRequest) -> Iterator[str]:
    if section is Section.STABLE:  # a pinned sentence is meant to last
        yield from request.edits.pinned
    if section in _replaced(request):
        yield _replaced(request)[section]


def _user_sentence(text: str) -> Sentence:
    return Sentence(text=clean(text, USER_CHARS), origin=Origin.USER)


def _undescribed(request: ProfileRequest) -> dict[Section, list[Sentence]]:
    """Where nothing could be said because no item has a text yet: that, and nothing else."""
    windows = request.windows
    nested = ((Section.NOW, windows.short), (Section.CURRENT, windows.medium))
    for section, entries in (*nested, (Section.STABLE, windows.long)):
        unknown = [entry for entry in reversed(entries) if not clean(entry.text, TITLE_CHARS)]
        if unknown:
            return {section: [_unknown_items(unknown)]}
    return {}


def _unknown_items(entries: Sequence[WindowEntry]) -> Sentence:
    items = dict.fromkeys(entry.item_id for entry in entries)
    what = "an item" if len(items) == 1 else f"{len(items)} items"
    return Sentence(
        text=f"Chose {what} not described yet",
        evidence=tuple(entry.event_id for entry in entries[:MAX_EVIDENCE]),
        items=tuple(dict.fromkeys(entry.item_id for entry in entries[:MAX_EVIDENCE])),
        origin=Origin.EXTRACTIVE,
    )


def _text(draft: Draft, forbidden: Forbidden) -> str:
    """One line per section: its heading (unless that is a forbidden word) and sentences."""
    lines = []
    for section in Section:
        if said := "; ".join(sentence.text for sentence in draft.get(section, ())):
            heading = HEADINGS[section]
            lines.append(said if forbidden.found_in(heading) else f"{heading}: {said}")
    return "\n".join(lines)


def _counts(draft: Draft, rejected: int) -> SentenceCounts:
    origins = Counter(sentence.origin for said in draft.values() for sentence in said)
    return SentenceCounts(
        kept=origins[Origin.MODEL], rejected=rejected, extractive=origins[Origin.EXTRACTIVE]
    )
