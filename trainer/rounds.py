"""What a round of a run is made of, as a function of the seed and the round's number alone."""

from __future__ import annotations

import numpy as np


def cases_of_round(cases: int, prompts: int, seed: int, number: int) -> list[int]:
    """Which of `cases` a round takes: in one permutation after another, none is left out."""
    size = min(prompts, cases)
    places = range(number * size, (number + 1) * size)
    return [_permutation(cases, seed, place // cases)[place % cases] for place in places]


def seed_of_round(seed: int, number: int) -> int:
    """A seed of the round's own."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _permutation(cases: int, seed: int, turn: int) -> list[int]:
    return np.random.default_rng((seed, turn)).permutation(cases).tolist()
