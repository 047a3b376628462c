"""How much of a reward can be learned from: is the better of two answers so by more than luck?

A user's next items are one draw of what the user could have chosen next. An answer that is worth
more on one random half of them and not on the other was lucky; a reward that follows luck teaches
nothing. So each reward is taken on one half and held against the other. Halves also agree by what
an answer is worth to anybody, by how much it says at all; that is what they agree by on the next
items of another user, and only what goes beyond it is about the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from trainer.evaluation.bootstrap import Interval, interval
from trainer.reward.rewards import CataloguePositions, Floats, Target, ndcg

Reward = Callable[[Floats, Target], float]  # scores [items], what is to be ranked
Halves = tuple[Target, Target]

TIMES: Final = 10  # each prompt's next items are halved


@dataclass(frozen=True, slots=True)
class Signal:
    """What one reward says of the answers to a prompt."""

    mean: float
    spread: float  # standard deviation between the answers to one prompt, mean over prompts
    agreement: float  # of its values on two halves: correlation between answers to one prompt
    anybody: float  # the same on halves of another user's next items
    gain: Interval  # NDCG of one half: the answer that is best on the other above the mean answer


def signals(
    scores: Floats, targets: Sequence[Target], rewards: Mapping[str, Reward], seed: int = 0
) -> dict[str, Signal]:
    """The signal of each reward; `scores` is [prompts, answers, items].

    A prompt with one next item has no halves, and counts in mean and spread only.
    """
    halves = [list(_halves(target, seed + row)) for row, target in enumerate(targets)]
    others = [*halves[1:], *halves[:1]]
    return {
        name: _signal(scores, targets, halves, others, reward) for name, reward in rewards.items()
    }


def _halves(target: Target, seed: int) -> Iterator[Halves]:
    """Each leaves the other out of its ranking: two that share ranks would look opposed."""
    draw = np.random.default_rng(seed)
    middle = len(target.next) // 2
    for _ in range(TIMES if middle else 0):
        mixed = draw.permutation(target.next)
        one, other = mixed[:middle], mixed[middle:]
        yield _without(one, target, other), _without(other, target, one)


def _without(half: CataloguePositions, target: Target, other: CataloguePositions) -> Target:
    return Target(half, np.concatenate([target.seen, other]))


def _signal(
    scores: Floats,
    targets: Sequence[Target],
    halves: Sequence[Sequence[Halves]],
    others: Sequence[Sequence[Halves]],
    reward: Reward,
) -> Signal:
    whole = np.array([_of(reward, s, t) for s, t in zip(scores, targets, strict=True)])
    gains = [_gain(reward, s, pairs) for s, pairs in zip(scores, halves, strict=True) if pairs]
    return Signal(
        mean=float(whole.mean()),
        spread=float(whole.std(axis=1).mean()),
        agreement=_agreement(reward, scores, halves),
        anybody=_agreement(reward, scores, others),
        gain=interval(np.array(gains)),
    )


def _gain(reward: Reward, scores: Floats, pairs: Sequence[Halves]) -> float:
    """Mean over the halvings of one prompt; `scores` is [answers, items]."""
    gains = []
    for one, other in pairs:
        worth = _of(ndcg, scores, other)
        gains.append(worth[_of(reward, scores, one).argmax()] - worth.mean())
    return float(np.mean(gains))


def _agreement(reward: Reward, scores: Floats, halves: Sequence[Sequence[Halves]]) -> float:
    """Correlation of a reward's values on two halves, each around its prompt's mean."""
    split = [
        (_of(reward, answers, one), _of(reward, answers, other))
        for answers, pairs in zip(scores, halves, strict=True)
        for one, other in pairs
    ]
    return _correlation(_centred(one for one, _ in split), _centred(other for _, other in split))


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
        f"| {name} | {one.mean:.4f} | {one.spread:.4f} | {one.agreement:+.2f} | {one.anybody:+.2f} "
        f"| {one.gain.mean:+.4f} ({one.gain.low:+.4f} … {one.gain.high:+.4f}) |"
        for name, one in found.items()
    )
    head = (
        "| reward | mean | spread in a prompt | agreement of halves | of another user's "
        "| gain in NDCG, other half |"
    )
    return "\n".join((head, "|---|---:|---:|---:|---:|---|", *rows))
