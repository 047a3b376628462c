"""Attention of the one word that is being written, on processors without a GPU.

PyTorch's fused kernel is made for many queries, and where query heads share key heads
transformers repeats keys and values for it at every word. At 64 rows of 180 tokens of the default
model a layer took 15 ms that way and 0.8 ms as the two products below (bfloat16, two cores).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME: Final = "word_by_word"


def write_word_by_word(network: PreTrainedModel) -> None:
    """Let `network`, where it is on a processor, write with `attention` below."""
    if network.device.type == "cpu" and network.config._attn_implementation == "sdpa":
        AttentionInterface.register(_NAME, attention)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        network.set_attn_implementation(_NAME)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers' `sdpa` computes: [rows, queries, heads, width] of
    query [rows, heads, queries, width], key and value [rows, key heads, tokens, width].

    `attention_mask` [rows, 1, queries, tokens]: true where a token is seen. `scaling` is that of
    the width if it is not given. Prompts, and layers with more to them than this, go to `sdpa`.
    """
    rows, heads, queries, width = query.shape
    if queries > 1 or others.get("position_bias") is not None or others.get("cache") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
    scale = width**-0.5 if scaling is None else scaling
    scores = query.view(rows, key.shape[1], -1, width) @ key.mT * scale
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    return (shares @ value).view(rows, 1, heads, width), None
