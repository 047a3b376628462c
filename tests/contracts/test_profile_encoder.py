"""One suite for the port ProfileEncoder: transformers, OpenAI-compatible servers, the fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from models.fakes import FakeEncoder
from models.ports import ProfileEncoder
from tests.conftest import MakeSettings
from tests.models.engines.completion_server import CompletionServer
from tests.vllm import Served

PROMPT = "<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n"
Opened = Callable[[], Any]  # → async context manager of a ProfileEncoder


@asynccontextmanager
async def fake() -> AsyncIterator[ProfileEncoder]:
    yield FakeEncoder(otherwise=lambda prompt: "red green blue yellow")


@asynccontextmanager
async def http_client(
    make_settings: MakeSettings, base_url: str, served_model: str | None = None
) -> AsyncIterator[ProfileEncoder]:
    from models.engines.model_files import language_model
    from models.engines.openai_encoder import OpenAIEncoder

    settings = make_settings(profile={"base_url": base_url, "served_model": served_model})
    encoder = OpenAIEncoder(settings.profile, language_model(settings))
    yield encoder
    await encoder.close()


@asynccontextmanager
async def scripted_server(make_settings: MakeSettings) -> AsyncIterator[ProfileEncoder]:
    async with (
        CompletionServer().running() as server,
        http_client(make_settings, server.base_url) as encoder,
    ):
        yield encoder


@asynccontextmanager
async def transformers_model(make_settings: MakeSettings) -> AsyncIterator[ProfileEncoder]:
    from models.engines.model_files import language_model
    from models.engines.transformers_encoder import TransformersEncoder

    settings = make_settings()
    encoder = TransformersEncoder(language_model(settings), settings.profile)
    yield encoder
    await encoder.close()


@pytest.fixture(
    params=[
        pytest.param("transformers", marks=pytest.mark.model),
        pytest.param("vllm", marks=pytest.mark.vllm),
        pytest.param("vllm lora", marks=pytest.mark.vllm),
        pytest.param("scripted", marks=pytest.mark.model),  # counts with the model's tokenizer
        "fake",
    ]
)
def opened(request: pytest.FixtureRequest, make_settings: MakeSettings) -> Opened:
    if request.param == "fake":
        return fake
    if request.param in ("transformers", "scripted"):
        make = transformers_model if request.param == "transformers" else scripted_server
        return lambda: make(make_settings)
    served: Served = request.getfixturevalue("vllm")
    name = served.lora if request.param == "vllm lora" else served.model
    return lambda: http_client(make_settings, served.base_url, name)


def with_encoder(opened: Opened, use: Callable[[ProfileEncoder], Any]) -> Any:
    async def run() -> Any:
        async with opened() as encoder:
            return await use(encoder)

    return asyncio.run(run())


def test_a_completion_carries_text_cost_and_the_model_that_wrote_it(opened: Opened) -> None:
    async def complete(encoder: ProfileEncoder) -> Any:
        return await encoder.complete(PROMPT, max_new_tokens=6), encoder.model

    completion, model = with_encoder(opened, complete)
    assert completion.text
    assert PROMPT not in completion.text
    assert completion.prompt_tokens > 0
    assert 0 < completion.completion_tokens <= 6
    assert completion.latency_ms >= 0
    assert completion.model == model
    assert model


def test_many_prompts_at_once_each_get_their_own_answer(opened: Opened) -> None:
    async def complete(encoder: ProfileEncoder) -> Any:
        limits = [1, 3, 2, 4, 1, 2, 3, 1, 2, 3, 1]  # more than one batch
        calls = (encoder.complete(PROMPT, max_new_tokens=limit) for limit in limits)
        return limits, await asyncio.gather(*calls)

    limits, completions = with_encoder(opened, complete)
    for limit, completion in zip(limits, completions, strict=True):
        assert 0 < completion.completion_tokens <= limit


def test_the_same_prompt_gives_the_same_text(opened: Opened) -> None:
    async def twice(encoder: ProfileEncoder) -> Any:
        return [(await encoder.complete(PROMPT, max_new_tokens=6)).text for _ in range(2)]

    first, second = with_encoder(opened, twice)
    assert first == second


def test_tokens_are_counted_without_a_call(opened: Opened) -> None:
    async def count(encoder: ProfileEncoder) -> Any:
        return [encoder.count_tokens(text) for text in ("", "lantern", "a red lunch bag")]

    none, one, many = with_encoder(opened, count)
    assert none == 0 < one < many


def test_an_engine_that_answers_says_that_it_is_well(opened: Opened) -> None:
    async def healthy(encoder: ProfileEncoder) -> Any:
        return await encoder.healthy()

    assert with_encoder(opened, healthy)
