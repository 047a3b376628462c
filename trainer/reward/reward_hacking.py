"""Watch figures: the ways in which a policy may please the reward without saying anything.

None of them is part of the reward. They are logged beside it, so that a rise of the reward can be
read together with what the profiles became (methods §8.11).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models.text import words

PHRASE_WORDS = 3  # a phrase that is said twice in one answer is a run of this many words


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One answer of the model beside what it was shown."""

    statements: tuple[str, ...]
    titles: tuple[str, ...]  # texts of the items of its history
    tokens: int


@dataclass(frozen=True, slots=True)
class WatchFigures:
    """Of a batch of answers; shares are between 0 and 1."""

    copied: float  # share of statements that repeat a whole title, word for word
    tokens: float  # mean length of an answer
    entropy: float  # of the batch's words, in bits; falls when all answers become alike
    repeated: float  # share of an answer's three-word phrases that it has said before, mean
    commonest: float  # share of answers that make the batch's most common statement


def watch(batch: Sequence[ShownAnswer]) -> WatchFigures:
    """Figures of a batch; all 0 for an empty one."""
    statements = [statement for written in batch for statement in written.statements]
    return WatchFigures(
        copied=_mean(copies(s, written.titles) for written in batch for s in written.statements),
        tokens=_mean(written.tokens for written in batch),
        entropy=entropy(word for statement in statements for word in words(statement)),
        repeated=_mean(repetition(written.statements) for written in batch),
        commonest=commonest(batch),
    )


def copies(statement: str, titles: Iterable[str]) -> bool:
    """Whether the words of a whole title of two words or more stand in the statement, in order."""
    said = _spaced(statement)
    return any(" " in title.strip() and title in said for title in map(_spaced, titles))


def entropy(tokens: Iterable[str]) -> float:
    """Shannon entropy of the distribution of tokens, in bits."""
    counts = Counter(tokens)
    total = counts.total()
    return -sum(n / total * math.log2(n / total) for n in counts.values()) if total else 0.0


def repetition(statements: Iterable[str]) -> float:
    """Share of an answer's three-word phrases that are said for the second time or more."""
    phrases = [phrase for statement in statements for phrase in _phrases(statement)]
    return 1.0 - len(set(phrases)) / len(phrases) if phrases else 0.0


def commonest(batch: Sequence[ShownAnswer]) -> float:
    """Share of the answers in which the most common statement of all stands."""
    said = Counter(s for written in batch for s in {_spaced(s) for s in written.statements})
    return max(said.values()) / len(batch) if said else 0.0


def _phrases(statement: str) -> list[tuple[str, ...]]:
    said = list(words(statement))
    starts = range(len(said) - PHRASE_WORDS + 1)
    return [tuple(said[start : start + PHRASE_WORDS]) for start in starts]


def _spaced(text: str) -> str:
    return f" {' '.join(words(text))} "


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held) if held else 0.0
