"""InfoNCE between profiles and the items that came next: pure functions over tensors.

For a profile p with next item v and negatives N, all of unit length (methods §7.1):

    L = −log( exp(p·v/τ) / ( exp(p·v/τ) + Σ_{n∈N} w(n) exp(p·n/τ) ) ),   w = 1

Negatives are the other pairs' items, less the pair's own next items and what the user had (methods
§7.2).

logQ (methods §7.3). In-batch negatives are drawn as often as they are bought, which punishes
popular items. With w(n) = 1 / (|N| Q(n)) the sum becomes an unbiased estimate of the sum over the
catalogue, where Q is the probability of the draw. The usual correction also divides the positive's
term by its Q; but the positive is not drawn, it is always there. The corrected form (arXiv
2507.09331) leaves its term alone and takes Q among the items that can be negatives of this row:
Q(n) = q(n) / (1 − q(v) − Σ_{h had} q(h)). That paper writes the loss as the stopped factor
1 − P(v) times −f(v) + log Σ w exp f(n); the gradient is the same as of L above.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_LEAST_MASS: Final = 1e-6  # of what a row may draw: users who had nearly everything


@dataclass(frozen=True, slots=True)
class Negatives:
    """Which columns are negatives of which rows, and how likely they were drawn."""

    allowed: Tensor  # [pairs, pairs] bool; the diagonal, the positives, is False
    log_q: Tensor | None = None  # [pairs, pairs] log Q; None: no correction

    def to(self, device: torch.device) -> Negatives:
        """The same on another device."""
        log_q = None if self.log_q is None else self.log_q.to(device)
        return Negatives(self.allowed.to(device), log_q)


@dataclass(frozen=True, slots=True)
class HardNegatives:
    """Mined negatives of each row. They stand in full: they were chosen, not drawn."""

    vectors: Tensor  # [pairs, mined, dimension]
    allowed: Tensor  # [pairs, mined] bool; False where fewer were found


def contrastive_loss(
    profiles: Tensor,
    items: Tensor,
    negatives: Negatives,
    *,
    temperature: float,
    hard: HardNegatives | None = None,
    symmetric: bool = False,
    matryoshka: Sequence[int] = (),
) -> Tensor:
    """Mean InfoNCE over pairs and over nested dimensions; `items[i]` came after `profiles[i]`.

    profiles, items: [pairs, dimension], of any length. `symmetric` averages it with the loss of
    items over profiles; profiles are drawn evenly, so that side has no logQ.
    """
    losses = [
        _one_size(*cut, negatives, temperature, hard=cut_hard, symmetric=symmetric)
        for cut, cut_hard in _nested(profiles, items, hard, matryoshka)
    ]
    return torch.stack(losses).mean()


def _one_size(
    profiles: Tensor,
    items: Tensor,
    negatives: Negatives,
    temperature: float,
    *,
    hard: HardNegatives | None,
    symmetric: bool,
) -> Tensor:
    forward = info_nce(profiles, items, negatives, temperature, hard)
    if not symmetric:
        return forward
    turned = Negatives(negatives.allowed.T)
    return (forward + info_nce(items, profiles, turned, temperature)) / 2


def info_nce(
    anchors: Tensor,
    others: Tensor,
    negatives: Negatives,
    temperature: float,
    hard: HardNegatives | None = None,
) -> Tensor:
    """Mean over rows of −log of the positive's share; vectors of unit length.

    A row without negatives has loss 0.
    """
    logits = anchors @ others.T / temperature  # [pairs, pairs]
    positive = logits.diagonal().unsqueeze(1)
    terms = [positive, _weighted(logits, negatives)]
    if hard is not None:
        mined = torch.einsum("pd,pmd->pm", anchors, hard.vectors) / temperature
        terms.append(mined.masked_fill(~hard.allowed, -torch.inf))
    return (torch.cat(terms, dim=1).logsumexp(dim=1) - positive.squeeze(1)).mean()


def _weighted(logits: Tensor, negatives: Negatives) -> Tensor:
    """logits + log w of the negatives, −inf elsewhere."""
    if negatives.log_q is not None:
        drawn = negatives.allowed.sum(dim=1, keepdim=True).clamp(min=1)
        logits = logits - negatives.log_q - drawn.log()
    return logits.masked_fill(~negatives.allowed, -torch.inf)


def _nested(
    profiles: Tensor, items: Tensor, hard: HardNegatives | None, sizes: Sequence[int]
) -> Iterator[tuple[tuple[Tensor, Tensor], HardNegatives | None]]:
    """The full vectors and their first dimensions, each to unit length (Matryoshka)."""
    for size in (profiles.shape[1], *sizes):
        cut = None
        if hard is not None:
            cut = HardNegatives(_unit(hard.vectors[..., :size]), hard.allowed)
        yield (_unit(profiles[:, :size]), _unit(items[:, :size])), cut


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1)


def allowed_negatives(positives: Sequence[str], had: Sequence[Collection[str]]) -> Tensor:
    """[pairs, pairs] whether the column's item is a negative of the row's profile.

    It is not if it is the row's own next item, in whichever pair, or among what its user `had`.
    """
    return torch.tensor(
        [
            [other != own and other not in known for other in positives]
            for own, known in zip(positives, had, strict=True)
        ]
    )


def log_draw_probabilities(
    positives: Sequence[str], had: Sequence[Collection[str]], share: Mapping[str, float]
) -> Tensor:
    """[pairs, pairs] log Q of the column's item as a negative of the row.

    `share`: how often an item is a positive; adds up to 1 over the catalogue.
    """
    masses = [
        1 - sum(share.get(item, 0.0) for item in {own, *known})
        for own, known in zip(positives, had, strict=True)
    ]
    shares = torch.tensor([share[item] for item in positives])
    return shares.log() - torch.tensor(masses).clamp(min=_LEAST_MASS).log().unsqueeze(1)
