"""Whether an adapter is really on: fixed texts whose probabilities only it makes.

An engine may take an adapter and leave it out, or have another one under the same name, and
still write fluent text. So a release's manifest holds a few texts with their log-probabilities
with the adapter and without it, and every replica measures them before it takes the release up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from models.ports import CanaryLine, ProfileEncoder

# Nats per token. What bfloat16, float32, merged weights and vLLM differ by among each other was
# at most .02 on the default model; an adapter that is off by one training run, .2 and more.
TOLERANCE: Final = 0.06


def verdict(
    lines: Sequence[CanaryLine], measured: Sequence[float], tokens: Sequence[int]
) -> str | None:
    """Why what an engine measured does not show that the adapter is on; None if it does.

    `measured` are its log-probabilities of `lines`, `tokens` the lengths of their texts.
    """
    if not lines:
        return "its manifest has no canary, so nothing can show that its adapter is on"
    length = max(1, sum(tokens))
    if not all(math.isfinite(value) for value in measured):
        return "the canary's texts have no finite probability"
    apart = _distance([line.logprob for line in lines], [line.base_logprob for line in lines])
    if apart / length <= 2 * TOLERANCE:
        return (
            f"its canary cannot tell its adapter from the base: {apart / length:.3f} nats a token "
            f"lie between them, {2 * TOLERANCE} are needed"
        )
    wrong = _distance(measured, [line.logprob for line in lines]) / length
    if wrong <= TOLERANCE:
        return None
    base = _distance(measured, [line.base_logprob for line in lines]) / length
    what = "the base model answers" if base <= TOLERANCE else "another model answers"
    return (
        f"{what} in place of its adapter: {wrong:.3f} nats a token from the manifest's canary "
        f"(at most {TOLERANCE}), {base:.3f} from the base's"
    )


def _distance(some: Sequence[float], others: Sequence[float]) -> float:
    return sum(abs(one - other) for one, other in zip(some, others, strict=True))


async def measure(
    encoder: ProfileEncoder, texts: Sequence[tuple[str, str]], adapter: str | None
) -> list[float]:
    """Log-probabilities of (prompt, text) pairs, one after another: few texts, no hurry."""
    return [await encoder.log_prob(prompt, text, adapter=adapter) for prompt, text in texts]


async def canary_of(
    encoder: ProfileEncoder, texts: Sequence[tuple[str, str]], adapter: str
) -> tuple[CanaryLine, ...]:
    """The canary for a manifest, from (prompt, text) pairs and a prepared adapter.

    Good texts are what the adapter itself writes for a few prompts: nothing else is as likely
    with it and as unlikely without.
    """
    own, base = await measure(encoder, texts, adapter), await measure(encoder, texts, None)
    pairs = zip(texts, own, base, strict=True)
    return tuple(CanaryLine(prompt, text, one, other) for (prompt, text), one, other in pairs)


async def adapter_shows(
    encoder: ProfileEncoder, lines: Sequence[CanaryLine], adapter: str
) -> str | None:
    """Measure the canary on an engine and judge it, as `verdict`."""
    texts = [(line.prompt, line.text) for line in lines]
    measured = await measure(encoder, texts, adapter)
    return verdict(lines, measured, [encoder.count_tokens(line.text) for line in lines])
