"""Drawing K completions of each prompt, which is read once for all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from transformers import PreTrainedModel

Ids = Sequence[int]
_THIN_OUT = 0.75  # rows still writing, of those carried along, below which the others are dropped


@torch.inference_mode()
def draw(
    network: PreTrainedModel,
    prompts: Sequence[Ids],
    k: int,
    *,
    max_new_tokens: int,
    temperature: float,
    stop: Collection[int],
    pad: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """[prompts × k] completions, those of one prompt side by side, with the stop token reached.

    The whole vocabulary is drawn from at `temperature`, without top-k or top-p, so that the
    distribution is the one that log-probabilities are taken of. Temperature 0 takes the likeliest.
    """
    ids, mask = left_padded(prompts, pad)
    ids, mask = ids.to(network.device), mask.to(network.device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    read = network(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
    )
    cache = read.past_key_values
    cache.batch_repeat_interleave(k)
    logits = read.logits[:, -1].repeat_interleave(k, dim=0)
    mask = mask.repeat_interleave(k, dim=0)
    position = positions[:, -1].repeat_interleave(k)
    written: list[list[int]] = [[] for _ in range(len(prompts) * k)]
    carried = list(range(len(written)))  # rows in the cache
    while True:
        chosen = _choose(logits, temperature, generator)
        for row, token in zip(carried, chosen.tolist(), strict=True):
            if not _ended(written[row], stop):
                written[row].append(token)
        alive = [
            place
            for place, row in enumerate(carried)
            if not _ended(written[row], stop) and len(written[row]) < max_new_tokens
        ]
        if not alive:
            return written
        if len(alive) < _THIN_OUT * len(carried):
            kept = torch.tensor(alive, device=network.device)
            cache.batch_select_indices(kept)
            chosen, mask, position = chosen[kept], mask[kept], position[kept]
            carried = [carried[place] for place in alive]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        position = position + 1
        logits = network(
            input_ids=chosen[:, None],
            attention_mask=mask,
            position_ids=position[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]


def _ended(written: Sequence[int], stop: Collection[int]) -> bool:
    return bool(written) and written[-1] in stop


def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """[rows] token ids from logits [rows, vocabulary]."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    shares = torch.softmax(logits.float() / temperature, dim=-1)
    return torch.multinomial(shares, 1, generator=generator)[:, 0]


def left_padded(rows: Sequence[Ids], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), each [rows, longest]: every row ends in the last column."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask
