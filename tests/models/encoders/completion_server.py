"""An OpenAI-compatible server that answers as a test wants it to: well, late, wrong or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from deploy.broker import free_port

Answer = Callable[[dict[str, Any]], Awaitable[web.StreamResponse] | web.StreamResponse]


class CompletionServer:
    """Serves one model; `answer` makes the response to a completion request."""

    def __init__(self, model: str = "served") -> None:
        self.model = model
        self.asked: list[dict[str, Any]] = []
        self.answer: Answer = lambda body: web.json_response(completion(body, "Likes lanterns."))
        self.port = free_port()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CompletionServer]:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        listed = {"object": "list", "data": [{"id": self.model, "object": "model", "created": 0}]}
        return web.json_response(listed)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        if body["model"] != self.model:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        answer = self.answer(body)
        return await answer if isinstance(answer, Awaitable) else answer


def completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    """A response as vLLM gives it."""
    words = text.split()[: body["max_tokens"]]
    read = len(body["prompt"].split())
    return {
        "id": "c",
        "object": "text_completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "text": " ".join(words), "finish_reason": "stop"}],
        "usage": {"prompt_tokens": read, "completion_tokens": len(words), "total_tokens": 0},
    }


async def never(_: dict[str, Any]) -> web.Response:
    """Does not answer."""
    await asyncio.sleep(3600)
    return web.Response()
