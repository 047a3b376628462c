"""Cross-entropy over the whole catalogue without holding positions × items at once.

The gradient of a softmax cross-entropy is known as soon as its forward pass is (softmax minus
one-hot), so each chunk of positions makes its logits once, turns them into gradients in place,
and is forgotten. Same value and gradients as `functional.cross_entropy`, a chunk's memory.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

CHUNK: Final = 512  # positions; times 12,000 items in float32: 25 MB


def full_softmax_loss(
    hidden: Tensor, items: Tensor, targets: Tensor, products: torch.dtype = torch.float32
) -> Tensor:
    """Mean over positions of −log softmax(hidden · itemsᵀ)[target].

    hidden: [positions, width]; items: [items, width]; targets: [positions], row numbers of
    `items`. `products`: precision of the matrix products; the softmax is float32 in any case.
    """
    loss: Tensor = _FullSoftmax.apply(hidden, items, targets, products)
    return loss


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, items: Tensor, targets: Tensor, products: torch.dtype
    ) -> Tensor:
        low_hidden, low_items = hidden.to(products), items.to(products)
        hidden_gradient = torch.empty_like(hidden)
        items_gradient = torch.zeros_like(items)
        total = hidden.new_zeros(())
        for start in range(0, len(hidden), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = (low_hidden[rows] @ low_items.T).float()  # [chunk, items]
            total += _softmax_in_place(logits, targets[rows])
            gradient = logits.to(products)
            hidden_gradient[rows] = gradient @ low_items
            items_gradient += gradient.T @ low_hidden[rows]
        ctx.save_for_backward(hidden_gradient / len(hidden), items_gradient / len(hidden))
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_gradient, items_gradient = ctx.saved_tensors
        return gradients[0] * hidden_gradient, gradients[0] * items_gradient, None, None


def _softmax_in_place(logits: Tensor, targets: Tensor) -> Tensor:
    """Turn logits into the loss's gradient (softmax − one-hot); returns the summed loss."""
    places = targets.unsqueeze(1)
    logits -= logits.amax(dim=1, keepdim=True)
    of_target = logits.gather(1, places)
    logits.exp_()
    sums = logits.sum(dim=1, keepdim=True)
    logits /= sums
    logits.scatter_add_(1, places, torch.full_like(of_target, -1.0))
    return (sums.log() - of_target).sum()
