"""Pairs of a user's text and the items that came next: what contrastive training sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.evaluation.evaluate import rankable
from trainer.learning.infonce import Negatives, allowed_negatives, log_draw_probabilities

TextOf = Callable[[Session], str]


@dataclass(frozen=True, slots=True)
class Pair:
    """One session: its text (profile or history), what came next, and what the user had."""

    text: str
    positives: tuple[str, ...]  # at least one; each time the pair is drawn, one of them is taken
    had: frozenset[str]  # never negatives


@dataclass(frozen=True, slots=True)
class Draw:
    """A batch: rows of pairs, and for each the item taken as its positive."""

    rows: tuple[int, ...]
    positives: tuple[str, ...]


def pairs_of(
    corpus: Corpus, sessions: Sequence[Session], text_of: TextOf, *, mask_seen: bool
) -> list[Pair]:
    """Sessions with a text and a next item to rank: where `mask_seen`, none that was had before."""
    told = ((text_of(one), one) for one in rankable(corpus, sessions, mask_seen))
    return [
        Pair(text, one.targets, frozenset(one.liked(corpus.spec))) for text, one in told if text
    ]


def history_text(corpus: Corpus, items: int) -> TextOf:
    """Texts of the newest distinct items that were liked, newest first, one per line.

    Newest first, because embedders cut long texts at their end: NoProfile of methods §7.2.
    """

    def text_of(session: Session) -> str:
        newest = dict.fromkeys(reversed(session.liked(corpus.spec)))
        texts = filter(None, map(corpus.text_of, newest))
        return "\n".join(text for text, _ in zip(texts, range(items), strict=False))

    return text_of


def draw(pairs: Sequence[Pair], batch: int, step: int, seed: int) -> Draw:
    """The batch of a step, which depends on nothing but `seed` and the step's number.

    Every pass over the pairs has an order of its own; the rest that fills no batch is left out.
    """
    size = min(batch, len(pairs))
    per_pass = len(pairs) // size
    order = np.random.default_rng((seed, step // per_pass)).permutation(len(pairs))
    start = step % per_pass * size
    rows = tuple(int(row) for row in order[start : start + size])
    choose = np.random.default_rng((seed, step // per_pass, step))
    return Draw(rows, tuple(str(choose.choice(pairs[row].positives)) for row in rows))


def shares(pairs: Sequence[Pair]) -> Mapping[str, float]:
    """How often an item is drawn as a positive; adds up to 1."""
    drawn: defaultdict[str, float] = defaultdict(float)
    for pair in pairs:
        for item in pair.positives:
            drawn[item] += 1 / len(pair.positives) / len(pairs)
    return drawn


def negatives_of(pairs: Sequence[Pair], draw: Draw, share: Mapping[str, float] | None) -> Negatives:
    """Who is whose negative in a batch; a pair's other positives are not its own negatives."""
    had = [pairs[row].had | set(pairs[row].positives) for row in draw.rows]
    allowed = allowed_negatives(draw.positives, had)
    if share is None:
        return Negatives(allowed)
    return Negatives(allowed, log_draw_probabilities(draw.positives, had, share))
