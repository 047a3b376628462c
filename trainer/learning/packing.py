"""Rollouts of the same prompt in one row: the prompt is read once, whatever their number.

A row is `[padding | prompt | completion 1 | completion 2 | … | padding]`. Every completion sees
the prompt and itself, never another completion, and its positions go on from the prompt's, so
that the log-probabilities are those of rows of their own. For K samples of a prompt that is
three times as long as a completion, this is about (4K) / (3 + K) times less work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_PADDING = -1  # segment of padding; 0 is the prompt, completions count from 1


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion of one prompt, as tokens."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]  # with the end of turn, if the model came to it
    text: str
    finished: bool  # whether it came to an end, in place of being cut off


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows for one forward pass. Every prompt ends at column `width` - 1."""

    ids: torch.Tensor  # [rows, columns]
    positions: torch.Tensor  # [rows, columns]
    visible: torch.Tensor  # [rows, 1, columns, columns]: bool, row's column i sees column j
    width: int  # columns of the padded prompts
    places: tuple[tuple[int, int, int], ...]  # per rollout: row, first column, length


def pack(rollouts: Sequence[Rollout], pad: int) -> Packed:
    """Rows of one prompt each, in order of first appearance. Completions must not be empty."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for number, rollout in enumerate(rollouts):
        rows.setdefault(rollout.prompt_ids, []).append(number)
    width = max(map(len, rows))
    longest = max(sum(len(rollouts[n].completion_ids) for n in row) for row in rows.values())
    shape = (len(rows), width + longest)
    ids, positions = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, _PADDING)
    places = [(0, 0, 0)] * len(rollouts)
    for row, (prompt, numbers) in enumerate(rows.items()):
        pieces = [(prompt, width - len(prompt), 0)]
        column = width
        for number in numbers:
            completion = rollouts[number].completion_ids
            places[number] = (row, column, len(completion))
            pieces.append((completion, column, len(prompt)))
            column += len(completion)
        for segment, (tokens, first, position) in enumerate(pieces):
            here = slice(first, first + len(tokens))
            ids[row, here] = torch.tensor(tokens)
            positions[row, here] = torch.arange(position, position + len(tokens))
            segments[row, here] = segment
    return Packed(ids, positions, _visible(segments), width, tuple(places))


def _visible(segments: torch.Tensor) -> torch.Tensor:
    """[rows, 1, columns, columns] from segments [rows, columns]; padding sees itself only."""
    columns = segments.shape[1]
    sees, seen = segments[:, :, None], segments[:, None, :]
    earlier = torch.ones(columns, columns, dtype=torch.bool).tril()
    own = torch.eye(columns, dtype=torch.bool)
    return ((seen == 0) | ((seen == sees) & (seen > 0))).logical_and(earlier)[:, None] | own


def chosen_log_probs(
    logits: torch.Tensor, packed: Packed, temperature: float
) -> list[torch.Tensor]:
    """Per rollout the log-probability of each token of its completion.

    `logits`: [rows, columns - width + 1, vocabulary], from the prompts' last column on. The
    first token of a completion is foretold by the prompt's last, each other by the one before.
    """
    scaled = logits.float() / temperature
    norms = torch.logsumexp(scaled, dim=-1)  # [rows, columns - width + 1]
    found = []
    for row, first, length in packed.places:
        told_by = torch.arange(first - packed.width, first - packed.width + length)
        told_by[0] = 0
        tokens = packed.ids[row, first : first + length].to(logits.device)
        told_by = told_by.to(logits.device)
        found.append(scaled[row, told_by, tokens] - norms[row, told_by])
    return found
