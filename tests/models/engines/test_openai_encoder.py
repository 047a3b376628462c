from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from models.engines import openai_encoder
from models.engines.openai_encoder import OpenAIEncoder
from models.errors import EngineError, EngineUnavailable
from models.ports import Completion
from models.settings import ProfileSettings
from tests.models.engines.completion_server import CompletionServer, completion, never
from tests.ports import free_port


@pytest.fixture(autouse=True)
def _count_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about HTTP; the tokenizer would need the converted model."""
    monkeypatch.setattr(openai_encoder, "token_counter", lambda _: lambda text: len(text.split()))


def ask(server: CompletionServer, **settings: Any) -> Completion:
    async def run() -> Completion:
        encoder = encoder_of(server.base_url, **settings)
        async with server.running():
            try:
                return await encoder.complete("a b c", max_new_tokens=9)
            finally:
                await encoder.close()

    return asyncio.run(run())


def encoder_of(base_url: str, **settings: Any) -> OpenAIEncoder:
    profile = ProfileSettings(**{"base_url": base_url, "timeout_s": 5.0} | settings)
    return OpenAIEncoder(profile, "no/tokenizer")


def response(**options: Any) -> Callable[[dict[str, Any]], web.Response]:
    return lambda _: web.Response(**options)


def test_the_prompt_goes_out_as_it_is_with_the_settings_of_sampling() -> None:
    server = CompletionServer()
    assert ask(server, repetition_penalty=1.3, seed=7).text == "Likes lanterns."
    (asked,) = server.asked
    assert asked["prompt"] == "a b c"
    assert (asked["max_tokens"], asked["temperature"], asked["seed"]) == (9, 0.0, 7)
    assert (asked["repetition_penalty"], asked["add_special_tokens"]) == (1.3, False)


def test_a_lora_is_asked_for_by_its_name() -> None:
    server = CompletionServer("taste-1")
    assert ask(server, served_model="taste-1").model == "taste-1"


def test_the_first_served_model_is_used_where_none_is_named() -> None:
    assert ask(CompletionServer("anything")).model == "anything"


def test_the_key_is_sent() -> None:
    server, seen = CompletionServer(), []

    async def answer(body: dict[str, Any]) -> web.Response:
        return web.json_response(completion(body, "x"))

    server.answer = answer
    original = server._complete

    async def watched(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["Authorization"])
        return await original(request)

    server._complete = watched  # type: ignore[method-assign]
    ask(server, api_key=SecretStr("s3cret"))
    assert seen == ["Bearer s3cret"]


@pytest.mark.parametrize("status", [401, 404, 408, 429, 500, 502, 503])
def test_a_refusal_that_may_pass_is_worth_another_try(status: int) -> None:
    server = CompletionServer()
    server.answer = response(status=status, text="later")
    with pytest.raises(EngineUnavailable, match=str(status)):
        ask(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_cannot_be_served_is_not(status: int) -> None:
    server = CompletionServer()
    server.answer = response(status=status, text="too long")
    with pytest.raises(EngineError) as raised:
        ask(server)
    assert not isinstance(raised.value, EngineUnavailable)


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{}",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"text": null}]}',
        b'{"choices": "x"}',
        b"\xff\xfe\x00",
        b"",
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
def test_an_answer_that_is_no_completion_is_an_engine_error(body: bytes, content_type: str) -> None:
    server = CompletionServer()
    server.answer = response(body=body, content_type=content_type)
    with pytest.raises(EngineError):
        ask(server)


def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    server = CompletionServer()
    server.answer = never
    with pytest.raises(EngineUnavailable, match="no answer"):
        ask(server, timeout_s=0.2)


def test_an_answer_that_never_ends_is_given_up_in_time() -> None:
    server = CompletionServer()

    async def endless(_: dict[str, Any]) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(server_request[0])
        while True:
            await stream.write(b" ")
            await asyncio.sleep(0.01)

    server_request: list[web.Request] = []
    original = server._complete

    async def watched(request: web.Request) -> web.StreamResponse:
        server_request.append(request)
        return await original(request)

    server._complete = watched  # type: ignore[method-assign]
    server.answer = endless
    with pytest.raises(EngineUnavailable, match="no answer"):
        ask(server, timeout_s=0.3)


def test_a_server_that_is_not_there_is_unavailable_and_not_well() -> None:
    encoder = encoder_of(f"http://127.0.0.1:{free_port()}/v1")

    async def try_it() -> bool:
        with pytest.raises(EngineUnavailable):
            await encoder.complete("p", max_new_tokens=1)
        return await encoder.healthy()

    assert not asyncio.run(try_it())


def test_a_server_without_the_model_that_is_asked_for_is_not_well() -> None:
    async def healthy(name: str) -> bool:
        async with CompletionServer("base").running() as server:
            return await encoder_of(server.base_url, served_model=name).healthy()

    assert asyncio.run(healthy("base"))
    assert not asyncio.run(healthy("taste-2"))
