"""Releases' adapters on an OpenAI-compatible server that runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from models.engines import openai_encoder
from models.engines.openai_encoder import OpenAIEncoder
from models.errors import EngineError, EngineUnavailable
from models.ports import Adapter
from models.settings import ProfileSettings
from tests.models.engines.completion_server import CompletionServer

Use = Callable[[OpenAIEncoder], Coroutine[Any, Any, Any]]


@pytest.fixture(autouse=True)
def _count_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about HTTP; the tokenizer would need the converted model."""
    ids = lambda _: lambda text: [len(word) for word in text.split()]  # noqa: E731
    monkeypatch.setattr(openai_encoder, "token_counter", lambda _: lambda text: len(text.split()))
    monkeypatch.setattr(openai_encoder, "token_ids", ids)


def with_encoder(server: CompletionServer, use: Use, **settings: Any) -> Any:
    async def run() -> Any:
        profile = ProfileSettings(
            **{"base_url": server.base_url, "timeout_s": 5.0, "model": "served"} | settings
        )
        async with server.running():
            encoder = OpenAIEncoder(profile, "no/tokenizer")
            try:
                return await use(encoder)
            finally:
                await encoder.close()

    return asyncio.run(run())


def test_an_adapter_is_loaded_once_and_asked_for_by_its_name(tmp_path: Path) -> None:
    async def use(encoder: OpenAIEncoder) -> list[str]:
        for _ in range(2):
            await encoder.prepare(Adapter("taste-1", tmp_path))
        own = await encoder.complete("a b", max_new_tokens=3, adapter="taste-1")
        base = await encoder.complete("a b", max_new_tokens=3)
        return [own.model, base.model]

    server = CompletionServer()
    assert with_encoder(server, use) == ["taste-1", "served"]
    assert [body["model"] for body in server.asked] == ["taste-1", "served"]
    assert server.loads == ["taste-1"]
    assert server.adapters == {"taste-1": str(tmp_path)}


def test_a_server_that_was_restarted_gets_the_adapter_again(tmp_path: Path) -> None:
    async def use(encoder: OpenAIEncoder) -> list[str]:
        await encoder.prepare(Adapter("taste-1", tmp_path))
        server.forget()
        calls = (encoder.complete("a", max_new_tokens=3, adapter="taste-1") for _ in range(5))
        return [completion.model for completion in await asyncio.gather(*calls)]

    server = CompletionServer()
    assert with_encoder(server, use) == ["taste-1"] * 5
    assert server.loads == ["taste-1"] * 2


def test_an_adapter_that_was_not_prepared_may_come(tmp_path: Path) -> None:
    async def use(encoder: OpenAIEncoder) -> None:
        with pytest.raises(EngineUnavailable, match="404"):
            await encoder.complete("a", max_new_tokens=3, adapter="taste-1")

    with_encoder(CompletionServer(), use)


def test_those_that_are_not_kept_are_unloaded(tmp_path: Path) -> None:
    async def use(encoder: OpenAIEncoder) -> None:
        for name in ("taste-1", "taste-2", "taste-3"):
            await encoder.prepare(Adapter(name, tmp_path))
        await encoder.keep({"taste-2", "taste-3"})
        server.forget()  # what is gone already is no reason to fail
        await encoder.keep({"taste-3"})

    server = CompletionServer()
    with_encoder(server, use)
    assert server.loads == ["taste-1", "taste-2", "taste-3"]
    assert server.adapters == {}


@pytest.mark.parametrize("takes_adapters", [True, False])
def test_a_server_that_cannot_load_it_is_no_use_and_the_error_says_what_is(
    tmp_path: Path, takes_adapters: bool
) -> None:
    async def use(encoder: OpenAIEncoder) -> None:
        with pytest.raises(EngineError, match="palate vllm --merge") as raised:
            await encoder.prepare(Adapter("taste-1", tmp_path / "nothing"))
        assert not isinstance(raised.value, EngineUnavailable)

    with_encoder(CompletionServer(takes_adapters=takes_adapters), use)


def test_merged_weights_under_the_releases_name_need_no_adapter(tmp_path: Path) -> None:
    async def use(encoder: OpenAIEncoder) -> str:
        await encoder.prepare(Adapter("taste-1", tmp_path))
        return (await encoder.complete("a", max_new_tokens=3, adapter="taste-1")).model

    server = CompletionServer("taste-1", takes_adapters=False)
    assert with_encoder(server, use) == "taste-1"
    assert server.loads == []


def test_a_name_in_the_settings_leaves_adapters_to_the_operator(tmp_path: Path) -> None:
    async def use(encoder: OpenAIEncoder) -> str:
        await encoder.prepare(Adapter("taste-1", tmp_path))
        return (await encoder.complete("a", max_new_tokens=3, adapter="taste-1")).model

    server = CompletionServer("mine")
    assert with_encoder(server, use, served_model="mine") == "mine"
    assert server.loads == []


def test_the_base_model_is_asked_for_by_name_where_the_server_lists_another_first() -> None:
    async def use(encoder: OpenAIEncoder) -> str:
        server.adapters["served"] = "here"
        return (await encoder.complete("a", max_new_tokens=3)).model

    server = CompletionServer("first")
    assert with_encoder(server, use) == "served"


def test_probabilities_are_those_of_the_text_after_the_prompt(tmp_path: Path) -> None:
    async def use(encoder: OpenAIEncoder) -> float:
        await encoder.prepare(Adapter("taste-1", tmp_path))
        return await encoder.log_prob("a bb ccc", " dddd eeeee", adapter="taste-1")

    server = CompletionServer()
    assert with_encoder(server, use) == -3.0 - 4.0  # tokens 3 and 4, after 0, 1 and 2
    (asked,) = server.asked
    assert (asked["model"], asked["prompt"]) == ("taste-1", [1, 2, 3, 4, 5])


def test_a_server_that_tells_no_probabilities_is_an_error() -> None:
    from aiohttp import web

    async def use(encoder: OpenAIEncoder) -> None:
        with pytest.raises(EngineError, match="no probabilities"):
            await encoder.log_prob("a", "b")

    server = CompletionServer()
    choice = {"index": 0, "text": "x", "finish_reason": "stop"}
    answer = {"id": "c", "object": "text_completion", "created": 0, "model": "m"}
    server.answer = lambda _: web.json_response({**answer, "choices": [choice]})
    with_encoder(server, use)
