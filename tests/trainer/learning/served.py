"""A vLLM server for tests, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import orjson


class Server:
    """Answers as vLLM does, and notes what it was asked."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.down = False
        self.full = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        body = orjson.loads(request.content)
        match request.url.path:
            case "/v1/load_lora_adapter":
                return self._load(body)
            case "/v1/unload_lora_adapter":
                return self._unload(body["lora_name"])
            case "/v1/completions" if body["model"] in self.loaded:
                self.asked.append(body)
                return httpx.Response(200, json=self._complete(body))
        return httpx.Response(404, text="no such model")

    def _load(self, body: dict[str, Any]) -> httpx.Response:
        folder = Path(body["lora_path"])
        known = body["lora_name"] in self.loaded
        if self.full or known or not (folder / "adapter_config.json").is_file():
            return httpx.Response(400, text="no slot, known already, or no adapter")
        self.loaded.append(body["lora_name"])
        return httpx.Response(200, text="Success")

    def _unload(self, name: str) -> httpx.Response:
        if name not in self.loaded:
            return httpx.Response(404, text="not loaded")
        self.loaded.remove(name)
        return httpx.Response(200, text="Success")

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = [
            {
                "index": n,
                "text": "tea",
                "token_ids": [4, 1] if n == 0 else [4, 5, 6],
                "prompt_token_ids": [2, 4],
                "finish_reason": "stop" if n == 0 else "length",
            }
            for n in range(body["n"])
        ]
        return {"choices": choices[::-1]}
