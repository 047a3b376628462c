"""How much of what the model writes the events bear out, and how much of it is only copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from models.profile.evidence import Evidence, section_events
from models.profile.grounding import content_stems, grounded, statements
from models.profile.prompts import first_section, shown_events
from models.schemas import ProfileRequest, Section
from models.text import words
from trainer.evaluation.bootstrap import Interval, interval, per_user


class Wording(StrEnum):
    """How a statement stands to the texts of the items that it may speak of."""

    TITLE = "title"  # all of an item's text, word for word
    PIECE = "piece"  # neighbouring words of one
    OWN = "own"  # anything else


class Statement(NamedTuple):
    """One statement of an answer, judged."""

    section: Section
    text: str
    passed: bool  # by models.profile.grounding
    wording: Wording


def judged(request: ProfileRequest, answer: str) -> list[Statement]:
    """The statements of an answer, those that say the same again left out."""
    events = section_events(request)
    said: set[tuple[bool, frozenset[str]]] = set()
    found = []
    for section, text in statements(answer, first_section(events)):
        key = (section is Section.AVOIDS, content_stems(text, section))
        if key not in said:
            said.add(key)
            passed = grounded(text, section, events[section]) is not None
            wording = wording_of(text, [*chain.from_iterable(events.values())])
            found.append(Statement(section, text, passed, wording))
    return found


def wording_of(statement: str, events: Sequence[Evidence]) -> Wording:
    """Whether a statement copies an item's text, or a piece of one."""
    said = f" {' '.join(words(statement))} "
    texts = {f" {' '.join(words(event.text))} " for event in events}
    if said in texts:
        return Wording.TITLE
    return Wording.PIECE if any(said in text for text in texts) else Wording.OWN


@dataclass(frozen=True, slots=True)
class GroundedShare:
    """Figures of the answers to a set of prompts. Shares are of statements, mean over users."""

    prompts: int
    users: int
    statements: int
    passed: int
    share: Interval  # that passed
    titles: float  # share of all statements that are a whole title
    pieces: float  # … neighbouring words of a title
    sections_asked: int
    sections_answered: int  # with at least one statement that passed
    finished: float  # share of answers that came to an end
    tokens: float  # mean per answer

    def to_json(self) -> dict[str, Any]:
        """Plain values, shares rounded."""
        shares = {"share": [round(value, 4) for value in self.share]}
        rounded = {name: round(getattr(self, name), 4) for name in ("titles", "pieces", "finished")}
        return {**asdict(self), **shares, **rounded, "tokens": round(self.tokens, 1)}


class Answered(NamedTuple):
    """A request with what the model wrote for it."""

    request: ProfileRequest
    text: str
    tokens: int
    finished: bool


def grounded_share(answers: Sequence[Answered], resamples: int = 2_000) -> GroundedShare:
    """Judge all answers. Users without a statement count in no share."""
    told = [judged(answer.request, answer.text) for answer in answers]
    every = [*chain.from_iterable(told)]
    users, shares = _shares(answers, told)
    return GroundedShare(
        prompts=len(answers),
        users=len(set(users)),
        statements=len(every),
        passed=sum(one.passed for one in every),
        share=interval(per_user(users, np.array(shares)), resamples=resamples),
        titles=_mean(one.wording is Wording.TITLE for one in every),
        pieces=_mean(one.wording is Wording.PIECE for one in every),
        sections_asked=sum(len(_asked(answer.request)) for answer in answers),
        sections_answered=sum(_answered(*pair) for pair in zip(answers, told, strict=True)),
        finished=_mean(answer.finished for answer in answers),
        tokens=_mean(answer.tokens for answer in answers),
    )


def _shares(
    answers: Sequence[Answered], told: Sequence[Sequence[Statement]]
) -> tuple[list[str], list[float]]:
    """(user, share that passed) of each answer with a statement."""
    pairs = [
        (answer.request.user_id, _mean(one.passed for one in said))
        for answer, said in zip(answers, told, strict=True)
        if said
    ]
    return [user for user, _ in pairs], [share for _, share in pairs]


def _asked(request: ProfileRequest) -> frozenset[Section]:
    return frozenset(shown_events(section_events(request)))


def _answered(answer: Answered, said: Sequence[Statement]) -> int:
    return len(_asked(answer.request) & {one.section for one in said if one.passed})


def _mean(values: Iterator[float] | Iterator[bool]) -> float:
    held = [float(value) for value in values]
    return sum(held) / len(held) if held else 0.0
