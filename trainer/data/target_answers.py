"""Answers to learn from: short, true, in the form that the prompt asks for (methods §4.2).

Of every item in the prompt's list the two or three words that tell most are kept, in their order;
items of a section that share such words are said once, by what they share. So an answer sums up
as far as the prompt allows, and says nothing that the grounding check would not bear out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple

from models.profile.assembly import MAX_MODEL_SENTENCES
from models.profile.evidence import LABELS, Evidence, section_events
from models.profile.grounding import content_stems, grounded, statements, telling
from models.profile.prompts import render, shown_events
from models.profile.words import COLOUR_WORDS, FUNCTION_WORDS, PACKING_WORDS
from models.schemas import ProfileRequest, Section
from models.settings import WindowSettings
from models.text import WORD, claims, stem, tells, words
from streams.windows import HOUR_MS
from trainer.data.sessions import Session, request_of

MAX_WORDS: Final = 3  # as the prompt asks

_TOKEN: Final = re.compile(rf"{WORD}(?:[-'’]{WORD})*|[^\w\s'’-]")
_LAST: Final = 1.5  # the last word of a run is most often the noun: "holder", "frame", "bag"
_COLOUR: Final = 0.5  # tells of the item, but less of the taste
_SHARED: Final = 2  # words that two items must share to be said together
_SURFACES: Final = frozenset({"finish", "coating"})  # "picture frame white finish" is a frame
_NAMES_TOO: Final = frozenset({"box"})  # packing in "box of 6", an item in "lunch box"


# Sessions → prompts with the answers that a warm start learns.

AFTER_MS: Final = HOUR_MS  # a profile is asked for soon after a visit, too


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the answer wanted."""

    prompt: str
    answer: str


def moments(session: Session) -> Iterator[Session]:
    """The session's moment, before a visit, and the one just after the visit before it.

    The live system asks for profiles at both: of silent users, and of those who have just
    bought, whose prompt has a line Now.
    """
    yield session
    soon = session.history[-1].timestamp + AFTER_MS
    if soon < session.as_of:
        yield replace(session, as_of=soon)


def requests(
    sessions: Iterable[Session], spec: WindowSettings, text_of: Callable[[str], str]
) -> Iterator[ProfileRequest]:
    """The requests of all moments of `sessions`, in order."""
    for session in sessions:
        for moment in moments(session):
            yield request_of(moment, spec, text_of)


def examples(requested: Iterable[ProfileRequest], weights: WordWeights) -> list[Example]:
    """Each distinct prompt of which there is something to say, with its answer, in order."""
    found: dict[str, Example] = {}
    for request in requested:
        answer = target_answer(request, weights)
        if answer is not None:
            prompt = render(request)
            found.setdefault(prompt, Example(prompt, answer))
    return list(found.values())


@dataclass(frozen=True, slots=True)
class WordWeights:
    """How much a word tells in a catalogue: the logarithm of how rare its stem is."""

    weights: Mapping[str, float]  # by stem
    unknown: float

    @classmethod
    def of(cls, texts: Iterable[str]) -> WordWeights:
        """ln((items + 1) / (items with the word + ½)), as in BM25's older form, never below 0.1."""
        counts: Counter[str] = Counter()
        items = 0
        for text in texts:
            items += 1
            counts.update({stem(word) for word in words(text)})
        weights = {
            word: max(0.1, math.log((items + 1) / (count + 0.5))) for word, count in counts.items()
        }
        return cls(weights, math.log(2 * (items + 1)))

    def of_word(self, word: str) -> float:
        """Weight of a word as written; several parts ("t-light") tell as much as their rarest."""
        parts = [self.weights.get(stem(part), self.unknown) for part in words(word)]
        weight = max(parts, default=0.0)
        return _COLOUR * weight if {*words(word)} <= COLOUR_WORDS else weight


class Phrase(NamedTuple):
    """Neighbouring words of one item's text."""

    words: tuple[str, ...]  # as written

    @property
    def stems(self) -> tuple[str, ...]:
        """By which phrases are compared."""
        return tuple(" ".join(stem(part) for part in words(word)) for word in self.words)

    def said(self) -> str:
        """As a statement of the answer."""
        text = " ".join(self.words)
        return text[:1].upper() + text[1:]


def target_answer(request: ProfileRequest, weights: WordWeights) -> str | None:
    """What the model should write after `render(request)`; None if there is nothing to say.

    Every statement passes `grounded` for its section, and none says what another has said.
    """
    said = target_phrases(request, weights)
    shown = shown_events(section_events(request))
    first = next(iter(shown), None)
    if first is None or first not in said:
        return None
    lines = [f"{LABELS[section]}: {'; '.join(phrases)}" for section, phrases in said.items()]
    return "\n".join(lines).removeprefix(f"{LABELS[first]}:")


def target_phrases(request: ProfileRequest, weights: WordWeights) -> dict[Section, tuple[str, ...]]:
    """Statements by section in the order of the answer; sections with nothing to say are absent."""
    events = section_events(request)
    said: set[tuple[bool, frozenset[str]]] = set()
    answer: dict[Section, tuple[str, ...]] = {}
    for section, shown in shown_events(events).items():
        kept: list[str] = []
        for choices in _told(shown, weights):
            for phrase in choices:
                statement = phrase.said()
                key = (section is Section.AVOIDS, content_stems(statement, section))
                if key not in said and _is_read_as_meant(statement, section, events[section]):
                    said.add(key)
                    kept.append(statement)
                    break
        if kept:
            answer[section] = tuple(kept[:MAX_MODEL_SENTENCES])
    return answer


def _is_read_as_meant(statement: str, section: Section, events: Sequence[Evidence]) -> bool:
    """One statement and borne out: a full stop inside a title would make it two."""
    read = [*statements(statement, section)]
    return read == [(section, statement)] and grounded(statement, section, events) is not None


def _told(shown: Sequence[Evidence], weights: WordWeights) -> Iterator[list[Phrase]]:
    """For each thing to be said of a section: the phrases that say it, the best first."""
    phrases = [_phrases(event.text, weights) for event in shown]
    left = list(range(len(shown)))
    while shared := _most_shared([phrases[n] for n in left], weights):
        holders = [n for n in left if _holds(phrases[n], shared)]
        left = [n for n in left if n not in holders]
        yield [shared, *phrases[holders[0]]]
    for n in left:
        yield phrases[n]


def _holds(phrases: Sequence[Phrase], shared: Phrase) -> bool:
    return any(phrase.stems == shared.stems for phrase in phrases)


def _most_shared(of_items: Sequence[Sequence[Phrase]], weights: WordWeights) -> Phrase | None:
    """The phrase of two or more words that most of the items hold; the most telling of those."""
    holders = Counter(
        stems for phrases in of_items for stems in {phrase.stems for phrase in phrases}
    )
    candidates = [
        phrase
        for phrases in of_items
        for phrase in phrases
        if len(phrase.words) >= _SHARED and holders[phrase.stems] > 1
    ]
    return max(
        candidates,
        key=lambda phrase: (holders[phrase.stems], _worth(phrase, weights)),
        default=None,
    )


def _phrases(text: str, weights: WordWeights) -> list[Phrase]:
    """All phrases of an item's text, the most telling first."""
    head, _, _ = text.partition(", ")  # sizes, brand and category follow the comma
    runs = [*_runs(head)] or [*_runs(text)]
    found: dict[tuple[str, ...], tuple[float, Phrase]] = {}
    for run in runs:
        for size in range(1, MAX_WORDS + 1):
            for start in range(len(run) - size + 1):
                phrase = Phrase(tuple(run[start : start + size]))
                if _names(phrase):
                    last = start + size == len(run)
                    worth = _worth(phrase, weights) * (_LAST if last else 1)
                    found.setdefault(phrase.stems, (worth, phrase))
    ranked = sorted(found.values(), key=lambda one: -one[0])  # stable: the earlier of equals
    return [phrase for _, phrase in ranked]


def _names(phrase: Phrase) -> bool:
    """Whether it names a thing and does not break off at a word that needs a noun after it."""
    parts = [*claims(" ".join(phrase.words))]
    last = {*words(phrase.words[-1])}
    return any(map(telling, parts)) and not last <= COLOUR_WORDS


def _worth(phrase: Phrase, weights: WordWeights) -> float:
    return sum(weights.of_word(word) for word in phrase.words)


def _runs(text: str) -> Iterator[list[str]]:
    """Telling words between punctuation, counts, sizes and function words."""
    run: list[str] = []
    tokens = [*_TOKEN.findall(text), ""]
    for token, after in pairwise(tokens):
        if _keeps(token, after, begun=bool(run)):
            run.append(token)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _keeps(token: str, after: str, *, begun: bool) -> bool:
    parts = {*words(token)}
    if begun and parts <= _NAMES_TOO:
        return after.casefold() != "of"
    return tells(token) and not parts <= (FUNCTION_WORDS | PACKING_WORDS | _SURFACES)
