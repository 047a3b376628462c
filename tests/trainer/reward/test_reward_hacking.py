"""The watch figures, counted by hand."""

from __future__ import annotations

import math

import pytest

from trainer.reward.reward_hacking import ShownAnswer, commonest, copies, entropy, repetition, watch


def test_a_statement_with_a_whole_title_in_it_is_a_copy() -> None:
    titles = ("Pink lunch box", "Mug")

    assert copies("PINK LUNCH BOX, sets", titles)
    assert not copies("Pink box for lunch", titles)
    assert not copies("Mug", titles)  # one word is no verbatim copy
    assert not copies("Pink lunch boxes", titles)


def test_entropy_is_that_of_the_words() -> None:
    assert entropy(["a", "b", "c", "d"]) == pytest.approx(2.0)
    assert entropy(["a", "a", "a", "b"]) == pytest.approx(
        -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    )
    assert entropy([]) == 0.0


def test_a_phrase_is_repeated_when_its_three_words_come_again() -> None:
    assert repetition(["red tea cup", "red tea cup"]) == 0.5
    assert repetition(["red tea cup set"]) == 0.0
    assert repetition(["red tea"]) == 0.0


def test_the_most_common_statement_shows_that_all_answers_are_alike() -> None:
    batch = [ShownAnswer(("Gifts", "Gifts", text), (), 4) for text in ("mugs", "bags", "tins")]

    assert commonest(batch) == 1.0
    assert commonest(batch[:1]) == 1.0
    assert commonest([ShownAnswer(("a",), (), 1), ShownAnswer(("b",), (), 1)]) == 0.5


def test_the_figures_of_a_batch_are_means_over_its_answers() -> None:
    figures = watch(
        [
            ShownAnswer(("Pink lunch box", "tea cups"), ("Pink lunch box",), 10),
            ShownAnswer(("mugs",), ("Enamel mug",), 20),
        ]
    )

    assert figures.copied == pytest.approx(1 / 3)
    assert figures.tokens == 15.0
    assert figures.repeated == 0.0
    assert figures.commonest == 0.5


def test_an_empty_batch_has_figures_of_zero() -> None:
    assert watch([]).tokens == 0.0
    assert watch([ShownAnswer((), (), 0)]).entropy == 0.0
