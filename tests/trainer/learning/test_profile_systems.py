"""Systems that rank by texts: what they score, that the control is one, how hybrids are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import TrainingError
from models.fakes import HashEmbedder
from models.ports import Vectors
from tests.trainer.users import session
from trainer.data.sessions import Session
from trainer.evaluation.systems import ScoreMatrix
from trainer.learning.profile_systems import (
    EmbeddedTextSystem,
    HybridSystem,
    RememberingEmbedder,
    fit_hybrid,
    one_by_one,
    shuffled,
    standardised,
)

TEA, CAT = session("ann", ("tea",), ("tea",)), session("bob", ("cat",), ("cat",))
EMBEDDER = HashEmbedder()
ITEMS = EMBEDDER.embed(["tea pot", "cat bowl", "lamp"])


class Fixed:
    """A system with one row of scores for everybody."""

    def __init__(self, name: str, row: Sequence[float]) -> None:
        self.name, self._row = name, np.array(row, np.float32)

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        return np.tile(self._row, (len(sessions), 1))


def names(sessions: Sequence[Session]) -> list[str]:
    return [found.user_id for found in sessions]


def first_item(found: Session) -> str:
    return found.history[0].item_id


def test_scores_are_cosines_to_the_text() -> None:
    system = EmbeddedTextSystem("text", one_by_one(first_item), EMBEDDER, ITEMS)

    scores = system.scores([TEA, CAT])

    assert scores.argmax(axis=1).tolist() == [0, 1]
    np.testing.assert_allclose(scores[0], ITEMS @ EMBEDDER.embed(["tea"])[0], rtol=1e-5)


def test_a_session_without_a_text_scores_nothing() -> None:
    system = EmbeddedTextSystem("text", one_by_one(lambda _: ""), EMBEDDER, ITEMS)

    assert system.scores([TEA]).tolist() == [[0.0, 0.0, 0.0]]


def test_a_remembering_embedder_gives_the_same_vectors_and_embeds_once() -> None:
    asked: list[str] = []

    class Counting(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            asked.extend(texts)
            return super().embed(texts)

    remembering = RememberingEmbedder(Counting())
    texts = ["tea", "cat", "tea"]

    np.testing.assert_array_equal(remembering.embed(texts), EMBEDDER.embed(texts))
    np.testing.assert_array_equal(remembering.embed(["cat"]), EMBEDDER.embed(["cat"]))
    assert asked == ["tea", "cat"]
    assert remembering.embed([]).shape == (0, 64)


@given(st.lists(st.integers(1, 3), min_size=2, max_size=12), st.integers(0, 99))
def test_nobody_keeps_their_own_text(counts: list[int], seed: int) -> None:
    sessions = [
        session(f"user-{user}", ("tea",) * (place + 1), ("tea",))
        for user, count in enumerate(counts)
        for place in range(count)
    ]

    texts = shuffled(names, sessions, seed)(sessions)
    given_by = {found.user_id: text for found, text in zip(sessions, texts, strict=True)}

    assert all(user != giver for user, giver in given_by.items())
    assert len(set(given_by.values())) == len(given_by)  # a permutation of the users


def test_a_shuffle_is_repeatable() -> None:
    sessions = [session(f"user-{n}", ("tea",), ("tea",)) for n in range(30)]

    def texts(seed: int) -> Sequence[str]:
        return shuffled(names, reversed(sessions), seed)(sessions)

    assert texts(1) == texts(1) != texts(2)


def test_a_single_user_cannot_be_shuffled() -> None:
    with pytest.raises(TrainingError, match="single user"):
        shuffled(names, [TEA, TEA], seed=0)


def test_a_hybrid_does_not_care_about_the_scale_of_a_part() -> None:
    first, second = Fixed("a", [3, 1, 2]), Fixed("b", [0, 0, 9])
    louder = Fixed("b", [5, 5, 9005])

    plain = HybridSystem("h", first, second, {0: 0.5}).scores([TEA])
    loud = HybridSystem("h", first, louder, {0: 0.5}).scores([TEA])

    np.testing.assert_allclose(plain, loud, rtol=1e-3)
    assert plain.argmax() == 2


def test_standardised_rows_have_mean_0_and_deviation_1() -> None:
    found = standardised(np.array([[1, 2, 3], [5, 5, 5]], np.float32))

    np.testing.assert_allclose(found, [[-(1.5**0.5), 0, 1.5**0.5], [0, 0, 0]], rtol=1e-6)


def test_weights_follow_activity() -> None:
    first, second = Fixed("a", [1, 0]), Fixed("b", [0, 1])
    active = session("eve", ("tea",) * 10, ("tea",))
    system = HybridSystem("h", first, second, {0: 1.0, 5: 0.0}, lambda s: len(s.history))

    assert system.scores([TEA, active]).argmax(axis=1).tolist() == [0, 1]


def test_the_fitted_weights_are_the_best_of_each_activity() -> None:
    first, second = Fixed("a", [1, 0]), Fixed("b", [0, 1])
    activities = np.array([1, 2, 7, 8])

    def first_is_right_for_the_inactive(system: HybridSystem) -> np.ndarray:
        chosen = system.scores([TEA])[0].argmax()
        return np.array([chosen == 0, chosen == 0, chosen == 1, chosen == 1], float)

    grid = (0.0, 0.4, 0.6, 1.0)
    weights = fit_hybrid(
        "h", first, second, first_is_right_for_the_inactive, activities, (0, 5, 100), grid
    )

    assert weights == {0: 0.6, 5: 0.0, 100: 0.0}  # nobody has done 100: the best over all


def test_a_user_at_another_age_gets_the_same_others_text() -> None:
    texts_of = shuffled(names, [TEA, CAT], seed=0)

    assert texts_of([replace(TEA, as_of=TEA.as_of - 1)]) == ["bob"]
