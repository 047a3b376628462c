"""Profiles written by a real vLLM server on CPU, with a LoRA under its own name."""

from __future__ import annotations

import asyncio

import pytest

from models.engines.model_files import embedder_model, language_model
from models.engines.openai_encoder import OpenAIEncoder
from models.errors import EngineError, EngineUnavailable
from models.profile.prompts import render
from models.schemas import Profile
from models.settings import Settings
from tests.conftest import MakeSettings
from tests.integration.test_profiler import Wire, profiler
from tests.streams.profiler.requests import request
from tests.vllm import Served

pytestmark = pytest.mark.vllm


def settings_for(make_settings: MakeSettings, served: Served, name: str) -> Settings:
    engine = {"engine": "openai", "base_url": served.base_url, "served_model": name}
    return make_settings(profile=engine | {"max_new_tokens": 32}, kafka={"partitions": 2})


def encoder_of(settings: Settings) -> OpenAIEncoder:
    return OpenAIEncoder(settings.profile, language_model(settings))


def test_many_requests_become_profiles_written_by_the_lora(
    kafka: str, make_settings: MakeSettings, vllm: Served
) -> None:
    from models.engines.embedder import SentenceEmbedder  # torch, only if wanted

    settings = settings_for(make_settings, vllm, vllm.lora)
    embedder = SentenceEmbedder(embedder_model(settings), settings.embedder)

    async def scenario() -> list[Profile]:
        async with Wire(settings).open() as wire:
            await wire.serve()
            async with profiler(settings, encoder_of(settings), embedder=embedder):
                await wire.ask(*(request(f"u{n}") for n in range(12)))
                await wire.until(lambda: len(wire.profiles) == 12)
            return wire.profiles

    profiles = asyncio.run(scenario())
    assert {profile.user_id for profile in profiles} == {f"u{n}" for n in range(12)}
    for profile in profiles:
        assert (profile.model, profile.fallback) == (vllm.lora, False)
        assert profile.tokens.prompt > 50
        assert 0 < profile.tokens.completion <= 32
        assert profile.text
        assert len(profile.vector) == 384


def test_the_lora_and_the_base_model_say_different_things(
    make_settings: MakeSettings, vllm: Served
) -> None:
    async def say(name: str) -> str:
        encoder = encoder_of(settings_for(make_settings, vllm, name))
        try:
            return (await encoder.complete(render(request()), max_new_tokens=16)).text
        finally:
            await encoder.close()

    assert asyncio.run(say(vllm.lora)) != asyncio.run(say(vllm.model))


def test_counted_tokens_are_those_that_the_server_reads(
    make_settings: MakeSettings, vllm: Served
) -> None:
    async def count() -> tuple[int, int]:
        encoder = encoder_of(settings_for(make_settings, vllm, vllm.model))
        prompt = render(request())
        completion = await encoder.complete(prompt, max_new_tokens=1)
        await encoder.close()
        return encoder.count_tokens(prompt), completion.prompt_tokens

    counted, read = asyncio.run(count())
    assert counted == read


def test_a_prompt_that_does_not_fit_is_refused_and_a_missing_lora_may_come(
    make_settings: MakeSettings, vllm: Served
) -> None:
    async def ask(name: str, prompt: str) -> EngineError:
        encoder = encoder_of(settings_for(make_settings, vllm, name))
        with pytest.raises(EngineError) as raised:
            await encoder.complete(prompt, max_new_tokens=8)
        await encoder.close()
        return raised.value

    assert not isinstance(asyncio.run(ask(vllm.model, "tea " * 3_000)), EngineUnavailable)
    assert isinstance(asyncio.run(ask("taste-2", "tea")), EngineUnavailable)
