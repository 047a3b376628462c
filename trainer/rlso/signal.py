"""How much of a reward can be learned from: is the better of two answers so by more than luck?

A user's next items are one draw of what the user could have chosen next. An answer that is worth
more on one random half of them and not on the other was lucky; a reward that follows luck teaches
nothing. So each reward is taken on one half and held against the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.bootstrap import Interval, interval
from trainer.rewards import Rows, Target, ndcg

Floats = NDArray[np.float64]
Reward = Callable[[Floats, Target], float]  # scores [items], what is to be ranked

TIMES: Final = 10  # each prompt's next items are halved


@dataclass(frozen=True, slots=True)
class Signal:
    """What one reward says of the answers to a prompt."""

    mean: float
    spread: float  # standard deviation between the answers to one prompt, mean over prompts
    agreement: float  # of its values on two halves: correlation between answers to one prompt
    gain: Interval  # NDCG of one half: the answer that is best on the other above the mean answer


def signals(
    scores: Floats, targets: Sequence[Target], rewards: Mapping[str, Reward], seed: int = 0
) -> dict[str, Signal]:
    """The signal of each reward; `scores` is [prompts, answers, items].

    A prompt with one next item has no halves, and counts in mean and spread only.
    """
    halves = [list(_halves(target, seed + row)) for row, target in enumerate(targets)]
    return {name: _signal(scores, targets, halves, reward) for name, reward in rewards.items()}


def _halves(target: Target, seed: int) -> Iterator[tuple[Target, Target]]:
    """Each leaves the other out of its ranking: two that share ranks would look opposed."""
    draw = np.random.default_rng(seed)
    middle = len(target.next) // 2
    for _ in range(TIMES if middle else 0):
        mixed = draw.permutation(target.next)
        one, other = mixed[:middle], mixed[middle:]
        yield _without(one, target, other), _without(other, target, one)


def _without(half: Rows, target: Target, other: Rows) -> Target:
    return Target(half, np.concatenate([target.seen, other]))


def _signal(
    scores: Floats,
    targets: Sequence[Target],
    halves: Sequence[Sequence[tuple[Target, Target]]],
    reward: Reward,
) -> Signal:
    whole = np.array([_of(reward, s, t) for s, t in zip(scores, targets, strict=True)])
    split = [
        [(_of(reward, s, one), _of(reward, s, other), _of(ndcg, s, other)) for one, other in pairs]
        for s, pairs in zip(scores, halves, strict=True)
        if pairs
    ]
    gains = [np.mean([n[a.argmax()] - n.mean() for a, _, n in prompt]) for prompt in split]
    return Signal(
        mean=float(whole.mean()),
        spread=float(whole.std(axis=1).mean()),
        agreement=_correlation(
            _centred(a for prompt in split for a, _, _ in prompt),
            _centred(b for prompt in split for _, b, _ in prompt),
        ),
        gain=interval(np.array(gains)),
    )


def _of(reward: Reward, scores: Floats, target: Target) -> Floats:
    """[answers] of one prompt, whose scores are [answers, items]."""
    return np.array([reward(row, target) for row in scores])


def _centred(prompts: Iterable[Floats]) -> Floats:
    """The values of all prompts in one row, each around its prompt's mean."""
    return np.concatenate([np.empty(0), *(values - values.mean() for values in prompts)])


def _correlation(one: Floats, other: Floats) -> float:
    """NaN where nothing differs."""
    norm = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / norm) if norm else float("nan")


def table_of(found: Mapping[str, Signal]) -> str:
    """Markdown."""
    rows = (
        f"| {name} | {one.mean:.4f} | {one.spread:.4f} | {one.agreement:+.2f} "
        f"| {one.gain.mean:+.4f} ({one.gain.low:+.4f} … {one.gain.high:+.4f}) |"
        for name, one in found.items()
    )
    head = "| reward | mean | spread in a prompt | agreement of halves | gain in NDCG, other half |"
    return "\n".join((head, "|---|---:|---:|---:|---|", *rows))
