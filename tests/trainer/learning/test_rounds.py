"""Which cases a round takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer.learning.rlso import cases_of_round, seed_of_round


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 3))
def test_every_case_is_taken_once_before_any_is_taken_again(
    cases: int, prompts: int, seed: int
) -> None:
    taken = [n for number in range(cases) for n in cases_of_round(cases, prompts, seed, number)]

    assert len(taken) == cases * min(cases, prompts)
    for turn in range(min(cases, prompts)):
        assert sorted(taken[turn * cases : (turn + 1) * cases]) == list(range(cases))


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 9))
def test_a_round_is_a_function_of_its_number(cases: int, prompts: int, number: int) -> None:
    found = cases_of_round(cases, prompts, 7, number)

    assert found == cases_of_round(cases, prompts, 7, number)
    assert len(found) == min(cases, prompts)
    assert set(found) <= set(range(cases))


def test_rounds_have_seeds_of_their_own() -> None:
    assert len({seed_of_round(seed, number) for seed in range(5) for number in range(50)}) == 250
