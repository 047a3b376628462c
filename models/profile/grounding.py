"""The grounding check: what of the model's answer do the events bear out?

A statement is taken apart at commas and "and". Each phrase's content words must all occur, by
stem, in the text of one and the same event, so that "pink lunch box" does not pass on a pink
mug and a lunch bag, nor "sugar" on sugar-free gum (see negation.py). The events found this way are
the statement's evidence: it is found by matching, never asked of the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from models.profile.evidence import LABELS, Evidence
from models.profile.negation import marked
from models.profile.words import (
    COLOUR_WORDS,
    DISLIKING_WORDS,
    FUNCTION_WORDS,
    LIKING_WORDS,
    PACKING_WORDS,
)
from models.schemas import Origin, Section, Sentence
from models.text import NEGATED, claims, clean, stem, tells

MAX_EVIDENCE: Final = 8  # event ids per sentence, the newest
MAX_ANSWER_CHARS: Final = 4_000
MAX_STATEMENT_CHARS: Final = 160

_SECTION_OF: Final = {label.casefold(): section for section, label in LABELS.items()}
_HEADING: Final = re.compile(
    rf"[*#\s-]{{0,8}}\b(?:right )?({'|'.join(_SECTION_OF)})(?: taste| interests)?[* ]{{0,3}}:",
    re.IGNORECASE,
)
_TURN_END: Final = re.compile(r"<\|im_(?:end|start)\|>|<\|endoftext\|>")
_STATEMENT_END: Final = re.compile(r"[;!?；！？。।॥؛؟۔።။]+|\.(?=\s|$)")
_PHRASE_END: Final = re.compile(r"[,，、،፣၊&+]|\b(?:and|or)\b", re.IGNORECASE)
_COUNT: Final = re.compile(r"\bx\d+\b")  # "x5" is the prompt's own notation, not a claim
_SAY_NOTHING: Final = FUNCTION_WORDS | LIKING_WORDS | DISLIKING_WORDS | PACKING_WORDS | COLOUR_WORDS
_EDGES: Final = " -–•.,:;'\"()/&+"


def statements(answer: str, first: Section) -> Iterator[tuple[Section, str]]:
    """The model's answer → (section, statement), in order; `first` is the prompt's heading.

    An empty line ends the answer until the next heading: what follows is the model talking of
    its work. Nonsense gives few or no statements; nothing raises.
    """
    section: Section | None = first
    told = _TURN_END.split(answer[:MAX_ANSWER_CHARS].strip(), maxsplit=1)[0]
    for line in _HEADING.sub(r"\n\1:", told).lstrip().splitlines():
        if heading := _HEADING.match(line):
            section = _SECTION_OF[heading.group(1).casefold()]
            line = line[heading.end() :]
        elif not line.strip():
            section = None
        if section is None:
            continue
        for part in _STATEMENT_END.split(line):
            if statement := _tidy(part):
                yield section, statement


def _tidy(part: str) -> str:
    text = clean(_COUNT.sub(" ", part), MAX_STATEMENT_CHARS).strip(_EDGES)
    return "" if text.casefold() in {"", "none", "nothing"} else text[:1].upper() + text[1:]


def grounded(statement: str, section: Section, events: Sequence[Evidence]) -> Sentence | None:
    """`statement` with its evidence, or None if `events` (oldest first) do not bear it out."""
    for read in _readings(statement, section):
        claimed = _claims(read, section)
        cited = [
            [event for event in reversed(events) if content <= event.stems] for content in claimed
        ]
        if cited and all(cited):
            return sentence(statement, cited, Origin.MODEL)
    return None


def _readings(statement: str, section: Section) -> Iterator[str]:
    """`statement` with its negated words marked.

    Under Avoids the "not" of "does not like mugs" may also be of the dislike, not of the mugs.
    """
    yield marked(statement)
    if section is Section.AVOIDS:
        yield marked(statement, besides=DISLIKING_WORDS)


def _claims(statement: str, section: Section) -> list[frozenset[str]]:
    """Content stems of each phrase of a marked statement.

    There are none if no phrase names anything ("likes sets of 6").

    A phrase that names nothing, such as a size or a colour, belongs to the one before it, or at
    the start to the one after: "tins, 6 oz" needs tins of 6 oz.
    """
    found: list[frozenset[str]] = []
    unnamed: frozenset[str] = frozenset()
    for phrase in _PHRASE_END.split(statement):
        content = _content(phrase, section)
        if any(telling(word) for word in claims(phrase)):
            found.append(content | unnamed)
            unnamed = frozenset()
        elif found:
            found[-1] |= content
        else:
            unnamed |= content
    return found


def telling(word: str) -> bool:
    """Whether a case-folded word can name what a taste is for: no count, size, colour or verb."""
    return tells(word) and word.lstrip(NEGATED) not in _SAY_NOTHING


def content_stems(text: str, section: Section) -> frozenset[str]:
    """Stems of the words that need evidence when said in `section`."""
    return _content(marked(text), section)


def _content(text: str, section: Section) -> frozenset[str]:
    free = FUNCTION_WORDS | (DISLIKING_WORDS if section is Section.AVOIDS else LIKING_WORDS)
    return frozenset(stem(word) for word in claims(text) if word not in free)


def sentence(text: str, cited: Sequence[Sequence[Evidence]], origin: Origin) -> Sentence:
    """A sentence resting on the first of each group of `cited`, then the second, … up to 8."""
    chosen: dict[str, str] = {}
    for rank in range(max(map(len, cited), default=0)):
        for group in cited:
            if rank < len(group) and len(chosen) < MAX_EVIDENCE:
                chosen.setdefault(group[rank].event_id, group[rank].item_id)
    items = tuple(dict.fromkeys(chosen.values()))
    return Sentence(text=text, evidence=tuple(chosen), items=items, origin=origin)
