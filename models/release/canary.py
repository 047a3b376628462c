"""Whether an adapter is really on: fixed texts whose probabilities only it makes.

An engine may take an adapter and leave it out, or have another one under the same name, and
still write fluent text. So a release's manifest holds a few texts with their log-probabilities
with the adapter and without it, and every replica measures them before it takes the release up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from models.errors import EmbedderError
from models.ports import CanaryLine, ProfileEncoder, TextEmbedder

# In nats per token, and as a share of what lies between the adapter and the base: bfloat16,
# float32, merged weights and vLLM differ by more, the more an adapter changes (docs/releases.md).
TOLERANCE: Final = 0.06
SHARE: Final = 0.05
PLAIN: Final = "A white hanging lantern; a red lunch bag."


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
    told = [line.logprob for line in lines]
    without = [line.base_logprob for line in lines]
    apart = _distance(told, without) / length
    if apart <= 2 * TOLERANCE:
        return (
            f"its canary cannot tell its adapter from the base: {apart:.3f} nats a token lie "
            f"between them, {2 * TOLERANCE} are needed"
        )
    tolerance = max(TOLERANCE, SHARE * apart)
    wrong, base = _distance(measured, told) / length, _distance(measured, without) / length
    if wrong <= tolerance:
        return None
    what = "the base model answers" if base <= tolerance else "another model answers"
    return (
        f"{what} in place of its adapter: {wrong:.3f} nats a token from the manifest's canary "
        f"(at most {tolerance:.3f}), {base:.3f} from the base's"
    )


def _distance(some: Sequence[float], others: Sequence[float]) -> float:
    return sum(abs(one - other) for one, other in zip(some, others, strict=True))


async def measure(
    encoder: ProfileEncoder, texts: Sequence[tuple[str, str]], adapter: str | None
) -> list[float]:
    """Log-probabilities of (prompt, text) pairs, one after another: few texts, no hurry."""
    return [await encoder.log_prob(prompt, text, adapter=adapter) for prompt, text in texts]


async def adapter_shows(
    encoder: ProfileEncoder, lines: Sequence[CanaryLine], adapter: str
) -> str | None:
    """Measure the canary on an engine and judge it, as `verdict`."""
    texts = [(line.prompt, line.text) for line in lines]
    measured = await measure(encoder, texts, adapter)
    return verdict(lines, measured, [encoder.count_tokens(line.text) for line in lines])


def check_embedder(embedder: TextEmbedder, of: str) -> None:
    """Raise EmbedderError if not even a plain text is embedded: then no text is to blame."""
    try:
        embedder.embed([PLAIN])
    except Exception as error:
        raise EmbedderError(f"the embedder of {of} fails: {error!r}") from error
