"""Learning rates as functions of a step's number, which begins at 0.

transformers has none of them with these values: its warm-ups of `get_linear_schedule_with_warmup`
and `get_cosine_with_min_lr_schedule_with_warmup` waste the first step at a rate of 0, its cosines
rise again after their end, where a prolonged warm start goes on, and its cosine without a warm-up
differs in the last bit.
"""

from __future__ import annotations

import math


def cosine_with_warmup(step: int, *, peak: float, warmup: int, end: int, least: float) -> float:
    """A linear rise over `warmup` steps, a cosine down to `least` × `peak` at `end`, then level."""
    if step < warmup:
        return peak * ((step + 1) / warmup)
    done = min(1.0, (step - warmup) / max(1, end - warmup))
    return peak * (least + (1 - least) * (1 + math.cos(math.pi * done)) / 2)


def linear_with_warmup(step: int, *, peak: float, warmup: int, end: int) -> float:
    """A linear rise over `warmup` steps, then a linear fall that reaches 0 at `end`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * min(1.0, (end - step) / max(1, end - warmup))


def half_cosine(step: int, *, peak: float, end: int) -> float:
    """From `peak` at once down to 0 at `end`."""
    return peak * (1 + math.cos(math.pi * step / end)) / 2
