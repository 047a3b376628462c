"""One request → one profile: prompt, model, grounding, embedding."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from models.identity import fallback_profile_id, profile_id, text_hash
from models.ports import Completion, ProfileEncoder, TextEmbedder
from models.profile.assembly import compose
from models.profile.prompts import PROMPT_VERSION, render
from models.schemas import Profile, ProfileRequest, TokenCounts
from models.settings import Settings
from streams.metrics import ProfilerMetrics
from streams.profiler.engine import Engine
from streams.profiler.profile_version import RecordPosition
from streams.profiler.release_loader import LoadedRelease, Sources

EXTRACTIVE: Final = "extractive"
VECTOR_DIGITS: Final = 7  # what a 32-bit float holds; written out in full it is twice as long


@dataclass(frozen=True, slots=True)
class Deps:
    """What the profiler is given: the engine (None: extractive by setting) and the embedder.

    Both as the settings name them; `sources` is where releases bring others from.
    """

    encoder: ProfileEncoder | None
    embedder: TextEmbedder
    count_tokens: Callable[[str], int]
    sources: Sources


class EngineAnswer(NamedTuple):
    """What the engine was asked and said; None: no engine, or all its tries failed."""

    prompt: str
    completion: Completion | None


class Writer:
    """Writes profiles; knows nothing of users beyond the request in hand."""

    def __init__(self, settings: Settings, deps: Deps, metrics: ProfilerMetrics) -> None:
        self._deps, self._metrics = deps, metrics
        self._max_tokens = settings.profile.max_tokens
        encoder = deps.encoder
        self.engine = Engine(encoder, settings.profile, metrics) if encoder else None

    async def ask(self, request: ProfileRequest, loaded: LoadedRelease) -> EngineAnswer:
        """What the engine answers with the release's adapter; without an engine nothing, at once.

        It is the same whatever was asked before: only the request enters the prompt.
        """
        prompt = render(request)
        asked = self.engine.ask(prompt, loaded.adapter) if self.engine else None
        return EngineAnswer(prompt, await asked if asked else None)

    async def write(
        self,
        request: ProfileRequest,
        position: RecordPosition,
        loaded: LoadedRelease,
        answer: EngineAnswer,
    ) -> Profile:
        """The profile made of `answer`: the model's, or a stand-in marked `fallback`."""
        completion = answer.completion
        text = completion.text if completion else None
        composed = compose(request, text, self._deps.count_tokens, self._max_tokens)
        fallback = self.engine is not None and completion is None
        return Profile(
            **_taken_over(request, position),
            **_engine_fields(completion),
            profile_id=_profile_id(request, loaded.release, fallback),
            sections=composed.sections,
            text=composed.text,
            sentences=composed.counts,
            release=loaded.release,
            fallback=fallback,
            prompt_version=PROMPT_VERSION,
            prompt_hash=text_hash(answer.prompt),
            vector=await self._embedded(composed.text, loaded.embedder),
            vector_release=loaded.release,
            created_at=time.time_ns() // 1_000_000,
        )

    async def _embedded(self, text: str, embedder: TextEmbedder) -> tuple[float, ...]:
        started = time.monotonic()
        vectors = await asyncio.to_thread(embedder.embed, [text])
        self._metrics.embedding_latency.observe(time.monotonic() - started)
        return tuple(round(value, VECTOR_DIGITS) for value in vectors[0].tolist())


def count_written(profile: Profile, metrics: ProfilerMetrics) -> None:
    """Count an acknowledged profile and what it cost."""
    outcome = "fallback" if profile.fallback else "model"
    if not profile.fallback and profile.model == EXTRACTIVE:
        outcome = EXTRACTIVE
    metrics.profiles.labels(outcome=outcome).inc()
    metrics.tokens.labels(kind="prompt").inc(profile.tokens.prompt)
    metrics.tokens.labels(kind="completion").inc(profile.tokens.completion)
    for name, count in profile.sentences.model_dump().items():
        metrics.sentences.labels(outcome=name).inc(count)


def _profile_id(request: ProfileRequest, release: str, fallback: bool) -> str:
    own_id = profile_id(
        request.user_id,
        request.applied_offset,
        request.edits_offset,
        request.as_of,
        release,
        PROMPT_VERSION,
    )
    return fallback_profile_id(own_id) if fallback else own_id


def _taken_over(request: ProfileRequest, position: RecordPosition) -> dict[str, Any]:
    """The fields that say which request the profile answers."""
    return {
        "user_id": request.user_id,
        "version": request.number,
        "as_of": request.as_of,
        "applied_offset": request.applied_offset,
        "edits_offset": request.edits_offset,
        "windows_hash": request.windows_hash,
        "rule": request.rule,
        "request_id": request.request_id,
        "request_partition": position.partition,
        "request_offset": position.offset,
    }


def _engine_fields(completion: Completion | None) -> dict[str, Any]:
    """The fields that say what the engine did."""
    if completion is None:
        return {"model": EXTRACTIVE}
    return {
        "model": completion.model,
        "tokens": TokenCounts(
            prompt=completion.prompt_tokens, completion=completion.completion_tokens
        ),
        "latency_ms": round(completion.latency_ms, 1),
    }
