"""What a profile is worth: how well it ranks what the user did next, and how it is written.

total = ndcg + similarity · log-lift of the targets + grounding · share of statements that the
events bear out + length · plateau. The first two are R²ec's fused reward, where a dense term goes
beside the nearly flat NDCG (methods §8.2), here in logarithms, so that every next item counts
and not the nearest alone. All of it is numpy and pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from models.ports import Vectors
from models.schemas import SentenceCounts
from models.training_settings import RlsoSettings

Floats = NDArray[np.float64]
CataloguePositions = NDArray[np.int64]  # positions of items in the catalogue


@dataclass(frozen=True, slots=True)
class Target:
    """What one profile is to rank, as rows of the catalogue."""

    next: CataloguePositions  # distinct items of the next moments, at least one
    seen: CataloguePositions  # left out of the ranking; none of `next` is among them


@dataclass(frozen=True, slots=True)
class Rewards:
    """Parts and weighted total of a batch of profiles; each array is [profiles]."""

    ndcg: Floats
    similarity: Floats
    grounding: Floats
    length: Floats
    total: Floats

    def means(self) -> Mapping[str, float]:
        """Mean of every part, by name; 0 for an empty batch."""
        return {
            name: float(np.mean(values)) if len(values) else 0.0
            for name, values in asdict(self).items()
        }


def rewards(
    profiles: Vectors,
    items: Vectors,
    targets: Sequence[Target],
    counts: Sequence[SentenceCounts],
    tokens: Sequence[int | None],
    settings: RlsoSettings,
) -> Rewards:
    """Rewards of n profiles whose unit vectors are `profiles` [n, dimension].

    `items` [catalogue, dimension]; `counts` as `compose` (models/profile/assembly.py) gives them;
    `tokens` is the length of the model's answer, None where it was cut off before its end.
    """
    scores = (profiles @ items.T).astype(np.float64)
    ranked = np.array([ndcg(row, t) for row, t in zip(scores, targets, strict=True)])
    near = np.array(
        [
            log_lift(row, t, settings.similarity_temperature)
            for row, t in zip(scores, targets, strict=True)
        ]
    )
    borne_out = np.array([grounding(one) for one in counts])
    sized = np.array([plateau(n, settings.min_tokens, settings.max_tokens) for n in tokens])
    total = (
        ranked
        + settings.similarity * near
        + settings.grounding * borne_out
        + settings.length * sized
    )
    return Rewards(ranked, near, borne_out, sized, total)


def ndcg(scores: Floats, target: Target) -> float:
    """NDCG of the targets over all items that are not seen; `scores` is [catalogue].

    The discounts 1 / log2(rank + 1) of the targets over those of the best order, without a
    cut-off. Items of one score share their ranks: each gets the mean of their discounts, which
    is its expectation over random ties. With one target this is the reward of methods §8.3.
    """
    unseen = np.delete(scores, target.seen)
    ordered = np.sort(unseen)
    wanted = scores[target.next]
    better = len(ordered) - np.searchsorted(ordered, wanted, side="right")
    not_worse = len(ordered) - np.searchsorted(ordered, wanted, side="left")
    gained = _discounts_to(not_worse) - _discounts_to(better)
    return float((gained / (not_worse - better)).sum() / _discounts_to(len(wanted)))


def _discounts_to(rank: CataloguePositions | int) -> Floats:
    """Sum of the discounts of ranks 1..rank."""
    deepest = int(np.max(rank))
    summed = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, deepest + 2)))])
    return np.asarray(summed[rank])


def log_lift(scores: Floats, target: Target, temperature: float) -> float:
    """How much likelier than chance the targets are, in nats: mean of log(share · items ranked).

    A target's share is that of the softmax over all unseen items (scores / temperature). One that
    is no likelier than chance counts 0 and not less: else whoever says something of a user and
    misses would have done better to say nothing, and a reward would be how little was said.
    """
    logits = scores / temperature
    unseen = np.delete(logits, target.seen)
    highest = unseen.max()
    chance = np.log(np.mean(np.exp(unseen - highest))) + highest
    return float(np.maximum(logits[target.next] - chance, 0.0).mean())


def grounding(counts: SentenceCounts) -> float:
    """Share of the model's statements that the events bear out; 0 if it made none."""
    made = counts.kept + counts.rejected
    return counts.kept / made if made else 0.0


def plateau(tokens: int | None, least: int, most: int) -> float:
    """1 for an answer of least..most tokens, else 0; 0 too for one that was cut off (None).

    A plateau and no slope: inside it, length is nothing that can be gained by (methods §8.5).
    """
    return float(tokens is not None and least <= tokens <= most)
