"""An OpenAI-compatible server that answers as a test wants it to: well, late, wrong or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.ports import free_port

Answer = Callable[[dict[str, Any]], Awaitable[web.StreamResponse] | web.StreamResponse]


class CompletionServer:
    """Serves one model; `answer` makes the response to a completion request.

    Takes adapters as vLLM does, unless `takes_adapters` is off; `forget` is a restart.
    """

    def __init__(self, model: str = "served", takes_adapters: bool = True) -> None:
        self.model = model
        self.takes_adapters = takes_adapters
        self.adapters: dict[str, str] = {}  # name → folder
        self.loads: list[str] = []  # names, each time one is loaded
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
        if self.takes_adapters:
            app.router.add_post("/v1/load_lora_adapter", self._load)
            app.router.add_post("/v1/unload_lora_adapter", self._unload)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    def forget(self) -> None:
        """Start again without the adapters that were brought."""
        self.adapters.clear()

    async def _models(self, _: web.Request) -> web.Response:
        names = (self.model, *self.adapters)
        cards = [{"id": name, "object": "model", "created": 0} for name in names]
        return web.json_response({"object": "list", "data": cards})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, folder = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if not Path(folder).is_dir():
            return _error(404, f"Loading lora {name} failed: No adapter found for {folder}")
        self.adapters[name] = folder
        self.loads.append(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.adapters.pop(name, None) is None:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        if body["model"] not in (self.model, *self.adapters):
            return _error(404, "no such model")
        answer = self.answer(body)
        return await answer if isinstance(answer, Awaitable) else answer


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)


def completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    """A response as vLLM gives it; a prompt's n-th token has the log-probability -n."""
    words = text.split()[: body["max_tokens"]]
    prompt = body["prompt"]
    read = len(prompt) if isinstance(prompt, list) else len(prompt.split())
    return {
        "id": "c",
        "object": "text_completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "text": " ".join(words),
                "finish_reason": "stop",
                "prompt_logprobs": _told(prompt) if "prompt_logprobs" in body else None,
            }
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": len(words), "total_tokens": 0},
    }


def _told(prompt: list[int]) -> list[dict[str, Any] | None]:
    told = [{str(token): {"logprob": -float(n), "rank": 1}} for n, token in enumerate(prompt)]
    return [None, *told[1:]]


async def never(_: dict[str, Any]) -> web.Response:
    """Does not answer."""
    await asyncio.sleep(3600)
    return web.Response()
