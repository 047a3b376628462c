"""What answers under profile.base_url is no model server: none of it is more than "away"."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from models.engines import openai_encoder, server_adapters
from models.engines.openai_encoder import OpenAIEncoder
from models.errors import EngineError, EngineUnavailable
from models.ports import Adapter
from models.settings import ProfileSettings
from streams.metrics import ProfilerMetrics
from streams.profiler import engine as engine_module
from streams.profiler.engine import Engine
from tests.models.engines.completion_server import CompletionServer
from tests.patience import HANG_S

WITHIN_S = 0.5
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_encoder, "token_counter", lambda _: lambda text: len(text.split()))
    monkeypatch.setattr(openai_encoder, "token_ids", lambda _: lambda text: [1] * len(text))
    monkeypatch.setattr(server_adapters, "LOAD_WITHIN_S", WITHIN_S)
    for name in ("FIRST_WAIT_S", "LONGEST_WAIT_S", "PROBE_EVERY_S"):
        monkeypatch.setattr(engine_module, name, 0.01)


def http(
    body: bytes, kind: str = "application/json", status: str = "200 OK", more: str = ""
) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


PAGE = b"<!doctype html><title>Sign in</title>"
JSON = {
    "null": None,
    "a number": 7,
    "a text": "ok",
    "a list": [1, {"id": "m"}],
    "nothing": {},
    "data is a text": {"data": "m", "choices": "m"},
    "data is null": {"data": None, "choices": None},
    "data holds null": {"data": [None], "choices": [None]},
    "data holds numbers": {"data": [1], "choices": [1]},
    "ids are numbers": {"data": [{"id": 1}], "choices": [{"text": 1}]},
    "ids are null": {"data": [{"id": None}], "choices": [{"text": None}]},
    "data is a mapping": {"data": {"id": "m"}, "choices": {"text": "m"}},
    "no choices": {"data": [], "choices": []},
    "an error": {"error": {"message": "no"}},
    "an error that is a text": {"error": "no"},
}
ANSWERS = {
    **{name: http(orjson.dumps(value)) for name, value in JSON.items()},
    "a page": http(PAGE, "text/html"),
    "a page that calls itself JSON": http(PAGE),
    "no type": http(PAGE, ""),
    "nothing at all": http(b""),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "to itself": http(b"", status="307 Temporary Redirect", more="Location: /v1/models\r\n"),
    "to nowhere": http(b"", status="302 Found", more="Location: http://127.0.0.1:9/\r\n"),
    "without a place": http(b"", status="302 Found"),
    "cut off": http(orjson.dumps({"data": [{"id": "m"}]}))[:-9],
    "no UTF-8": http(b'{"data": "\xff\xfe"}'),
    "half a surrogate": http(b'{"data": [{"id": "\\ud800"}], "choices": [{"text": 1}]}'),
    "infinity": http(b'{"data": [{"id": NaN}], "choices": [{"text": 1e999}]}'),
    "gzip that is none": http(PAGE, more="Content-Encoding: gzip\r\n"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "hung up": b"",
    "deep": http(b"[" * 100_000),
    "a length that lies": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
    "odd status": http(b"{}", status="299 Odd"),
    "499": http(PAGE, "text/html", status="499 Odd"),
    "503": http(PAGE, "text/html", status="503 Later"),
}


def saying(answer: bytes) -> Peer:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return peer


async def slow_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for letter in b"HTTP/1.1 200 OK\r\n" + b"X" * 10_000:
        writer.write(bytes([letter]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while True:
        writer.write(b"0,")
        await writer.drain()
        await asyncio.sleep(0.01)


PEERS = {name: saying(answer) for name, answer in ANSWERS.items()} | {
    "slow headers": slow_headers,
    "silent": silent,
    "endless": endless,
}


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[str]:
    """A base URL behind which `peer` answers every connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await peer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.close()


@contextmanager
def hanging() -> Iterator[str]:
    """A base URL to which nobody is connected: as many wait as the system lets wait."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            for one in waiting:
                one.close()


def encoder_of(base_url: str) -> OpenAIEncoder:
    return OpenAIEncoder(ProfileSettings(base_url=base_url, timeout_s=WITHIN_S), "no/tokenizer")


async def is_away(base_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of the port ends in time, with an error of the port at most."""
    encoder, began = encoder_of(base_url), time.monotonic()
    try:
        with pytest.raises(EngineUnavailable):
            await encoder.complete("a b", max_new_tokens=3)
        with pytest.raises(EngineUnavailable):
            await encoder.complete("a b", max_new_tokens=3, adapter="taste")
        with pytest.raises(EngineError):
            await encoder.log_prob("a", "b")
        with pytest.raises(EngineError):
            await encoder.prepare(Adapter("taste", folder))
        await encoder.keep([])
        assert await asyncio.wait_for(encoder.healthy(), HANG_S) is False
    finally:
        await encoder.close()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("name", sorted(PEERS))
def test_whatever_answers_is_away_until_it_is_a_model_server(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with listening(PEERS[name]) as base_url:
            await is_away(base_url, tmp_path, monkeypatch)

    asyncio.run(run())


def test_a_server_that_hangs_while_connecting_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hanging() as base_url:
        asyncio.run(is_away(base_url, tmp_path, monkeypatch))


def test_an_answer_whose_counts_are_no_numbers_is_counted_here() -> None:
    answer = {"choices": [{"text": "Likes lanterns."}], "usage": {"prompt_tokens": "two"}}

    async def run() -> tuple[int, int]:
        async with listening(saying(http(orjson.dumps({"data": [{"id": "m"}], **answer})))) as url:
            completion = await encoder_of(url).complete("a b", max_new_tokens=3)
            return completion.prompt_tokens, completion.completion_tokens

    assert asyncio.run(run()) == (2, 2)


@pytest.mark.parametrize("name", ["a page", "data is a text", "silent", "no HTTP"])
def test_an_engine_waits_for_one_that_is_none_says_so_once_and_goes_on(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """First a stranger answers, then a model server takes its place at the same address."""

    async def run() -> str | None:
        server = CompletionServer()
        url = server.base_url
        engine = engine_at(url)
        watching = asyncio.create_task(engine.watch())
        stranger = await asyncio.start_server(PEERS[name], "127.0.0.1", server.port)
        while engine.available:
            assert await engine.ask("a b") is None
        await asyncio.sleep(0.3)
        assert not watching.done()
        assert not engine.available
        stranger.close()
        async with server.running():
            async with asyncio.timeout(HANG_S):
                while not engine.available:
                    await asyncio.sleep(0.01)
            completion = await engine.ask("a b")
        watching.cancel()
        return completion and completion.text

    with caplog.at_level("WARNING", logger="streams.profiler.engine"):
        assert asyncio.run(run()) == "Likes lanterns."
    given_up = [r for r in caplog.records if "given up until it is well" in r.message]
    assert len(given_up) == 1


def engine_at(url: str) -> Engine:
    settings = ProfileSettings(base_url=url, timeout_s=WITHIN_S, retries=1)
    encoder = OpenAIEncoder(settings, "no/tokenizer")
    return Engine(encoder, settings, ProfilerMetrics(CollectorRegistry()))


def test_a_server_with_another_model_in_the_place_of_the_first_is_asked_for_its_own() -> None:
    async def run() -> list[str]:
        first = CompletionServer("one")
        encoder = encoder_of(first.base_url)
        async with first.running():
            models = [(await encoder.complete("a", max_new_tokens=3)).model]
        first.model = "two"
        async with first.running():
            with pytest.raises(EngineUnavailable):
                await encoder.complete("a", max_new_tokens=3)
            models.append((await encoder.complete("a", max_new_tokens=3)).model)
        await encoder.close()
        return models

    assert asyncio.run(run()) == ["one", "two"]
