"""Systems that rank by the embedding of a text about the user, their control, and hybrids.

The text is a profile, a history, whatever a function makes of a session; the score of an item is
the cosine between the two texts' vectors (methods §5.3).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.errors import TrainingError
from models.ports import TextEmbedder, Vectors
from models.profile.assembly import Composed
from trainer.data.sessions import Session
from trainer.evaluation.systems import ScoreMatrix, System
from trainer.learning.pairs import TextOf

TextsOf = Callable[[Sequence[Session]], Sequence[str]]  # models write for many at once
ProfilesOf = Callable[[Sequence[Session]], Sequence[Composed]]
WEIGHTS: Final = tuple(step / 10 for step in range(11))  # of the first system of a hybrid


class EmbeddedTextSystem:
    """Cosine between a text about the user and the items' texts."""

    def __init__(
        self, name: str, texts_of: TextsOf, embedder: TextEmbedder, item_vectors: Vectors
    ) -> None:
        """`item_vectors` [items, dimension] of unit length, by the same embedder."""
        self.name = name
        self._texts_of, self._embedder, self._items = texts_of, embedder, item_vectors

    def texts(self, sessions: Sequence[Session]) -> Sequence[str]:
        """What is ranked by."""
        return self._texts_of(sessions)

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        """Cosines; a session without a text scores 0 everywhere."""
        texts = self.texts(sessions)
        scores: ScoreMatrix = self._embedder.embed(texts) @ self._items.T
        scores[[not text for text in texts]] = 0.0
        return scores


class WrittenProfileSystem(EmbeddedTextSystem):
    """Ranks by profiles that a language model wrote."""

    def __init__(
        self, name: str, profiles_of: ProfilesOf, embedder: TextEmbedder, item_vectors: Vectors
    ) -> None:
        super().__init__(name, texts_of(profiles_of), embedder, item_vectors)
        self._profiles_of = profiles_of

    def profiles(self, sessions: Sequence[Session]) -> Sequence[Composed]:
        """The checked profiles."""
        return self._profiles_of(sessions)


def texts_of(profiles_of: ProfilesOf) -> TextsOf:
    """The texts of profiles."""
    return lambda sessions: [profile.text for profile in profiles_of(sessions)]


def one_by_one(text_of: TextOf) -> TextsOf:
    """Texts that need no batch."""
    return lambda sessions: [text_of(session) for session in sessions]


class RememberingEmbedder:
    """TextEmbedder that embeds no text twice, for systems over the same texts."""

    def __init__(self, embedder: TextEmbedder) -> None:
        self.model, self.dimension = embedder.model, embedder.dimension
        self._embedder = embedder
        self._known: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See TextEmbedder."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known |= dict(zip(new, self._embedder.embed(new), strict=True))
        rows = [self._known[text] for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), self.dimension)


def shuffled(texts_of: TextsOf, sessions: Iterable[Session], seed: int) -> TextsOf:
    """Each session's text is that of another user: the control that must fall.

    A text that ranks as well for somebody else says nothing of its user. No user keeps their own
    (a seeded cycle through all users), and a user's n-th session gets the other's n-th,
    a session that is not among `sessions` (a user at an earlier age) the other's first.
    Raises TrainingError if there is only one user.
    """
    by_user: dict[str, list[Session]] = {}
    for session in sessions:
        by_user.setdefault(session.user_id, []).append(session)
    if len(by_user) < 2:
        raise TrainingError("profiles of a single user cannot be shuffled")
    order = sorted(by_user)
    random.Random(seed).shuffle(order)
    partner = dict(zip(order, order[1:] + order[:1], strict=True))
    place = {one.key: n for held in by_user.values() for n, one in enumerate(held)}

    def another(session: Session) -> Session:
        others = by_user[partner[session.user_id]]
        return others[place.get(session.key, 0) % len(others)]

    return lambda asked: texts_of([another(session) for session in asked])


class HybridSystem:
    """Weighted sum of two systems' scores, each brought to mean 0 and deviation 1 per session.

    The weight may depend on how much a user has done: text says more of users with few events
    (methods §5.8, HSUGA).
    """

    def __init__(
        self,
        name: str,
        first: System,
        second: System,
        weights: Mapping[int, float],
        activity: Callable[[Session], int] = lambda _: 0,
    ) -> None:
        """`weights`: least activity → weight of `first`; the greatest reached counts."""
        self.name = name
        self._first, self._second = first, second
        self._weights, self._activity = dict(sorted(weights.items())), activity

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        """Unit-free; only the order means something."""
        weights = np.array([self._weight(session) for session in sessions], np.float32)[:, None]
        first, second = (standardised(one.scores(sessions)) for one in (self._first, self._second))
        mixed: ScoreMatrix = weights * first + (1 - weights) * second
        return mixed

    def _weight(self, session: Session) -> float:
        reached = [least for least in self._weights if least <= self._activity(session)]
        return self._weights[reached[-1] if reached else next(iter(self._weights))]


def standardised(scores: ScoreMatrix) -> ScoreMatrix:
    """Each row to mean 0 and deviation 1; a constant row to zeros."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    found: ScoreMatrix = centred / np.where(deviation > 0, deviation, 1)
    return found


def fit_hybrid(
    name: str,
    first: System,
    second: System,
    measure: Callable[[System], NDArray[np.float64]],
    activities: NDArray[np.int64],
    edges: Sequence[int] = (0,),
    grid: Sequence[float] = WEIGHTS,
) -> Mapping[int, float]:
    """For each least activity of `edges` the weight of `first` with the best mean measure.

    `measure` gives a system's metric for each validation session, [sessions]; `activities`
    [sessions] says how much their users had done. Where no session lies, the weight is that of
    all; of equally good weights the smallest is taken.
    """
    tried = [HybridSystem(f"{name}-{weight:g}", first, second, {0: weight}) for weight in grid]
    values = np.stack([measure(system) for system in tried])  # [grid, sessions]
    chosen = {}
    for least, below in zip(edges, (*edges[1:], np.inf), strict=True):
        inside = (activities >= least) & (activities < below)
        means = values[:, inside if inside.any() else slice(None)].mean(axis=1)
        chosen[least] = grid[int(means.argmax())]
    return chosen
