"""SASRec: self-attention over a user's items, scored against the whole catalogue.

After Kang and McAuley 2018 with tied item vectors and learned positions, but trained with full
softmax cross-entropy instead of one sampled negative: with that loss it beats most of what was
published since (methods §5.7), which makes it the sequence baseline to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.training_settings import SasrecSettings

ItemNumbers = NDArray[np.int64]  # of one user, oldest first


# Cross-entropy over the whole catalogue without holding positions × items at once.
#
# The gradient of a softmax cross-entropy is known as soon as its forward pass is (softmax minus
# one-hot), so each chunk of positions makes its logits once, turns them into gradients in place,
# and is forgotten. Same value and gradients as `functional.cross_entropy`, a chunk's memory.

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


class Sasrec(nn.Module):
    """Hidden states of item sequences; items and hidden states share one space."""

    def __init__(self, items: int, settings: SasrecSettings) -> None:
        super().__init__()
        self.max_length = settings.max_length
        self.items = nn.Embedding(items, settings.width)
        self.positions = nn.Embedding(settings.max_length, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width)
        self.apply(_initialise)

    def forward(self, sequences: Tensor) -> Tensor:
        """[users, length] item numbers, padded at the end → [users, length, width].

        No mask for the padding: attention is causal, so what follows a sequence does not
        reach it.
        """
        places = torch.arange(sequences.shape[1], device=sequences.device)
        states = self.dropout(self.items(sequences) + self.positions(places))
        for block in self.blocks:
            states = block(states)
        normed: Tensor = self.norm(states)
        return normed

    @torch.no_grad()
    def scores(self, histories: Sequence[ItemNumbers]) -> Tensor:
        """[users, items] logits of the next item; zeros for an empty history."""
        newest = [history[-self.max_length :] for history in histories]
        sequences, lengths = padded(newest)
        sequences, lengths = sequences.to(self._device), lengths.to(self._device)
        states = self(sequences)[torch.arange(len(newest)), (lengths - 1).clamp(min=0)]
        return (states * (lengths > 0).unsqueeze(1)) @ self.items.weight.T

    @property
    def _device(self) -> torch.device:
        return self.items.weight.device


class Block(nn.Module):
    """Causal attention and a feed-forward layer, each normed before and added after."""

    def __init__(self, settings: SasrecSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, states: Tensor) -> Tensor:
        """[users, length, width] → the same shape."""
        states = states + self.dropout(self._attended(self.attention_norm(states)))
        added: Tensor = states + self.dropout(self.feed(self.feed_norm(states)))
        return added

    def _attended(self, states: Tensor) -> Tensor:
        users, length, width = states.shape
        split = self.inputs(states).view(users, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=True,
        )
        attended: Tensor = self.output(mixed.transpose(1, 2).reshape(users, length, width))
        return attended


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Embedding | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def padded(sequences: Sequence[ItemNumbers]) -> tuple[Tensor, Tensor]:
    """([users, longest] item numbers with zeros at the end, [users] lengths)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    filled = np.zeros((len(sequences), max(1, int(lengths.max()))), np.int64)
    for row, sequence in zip(filled, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(filled), lengths
