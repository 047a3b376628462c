"""Adapters on a vLLM server that runs on: brought when a release comes, again if it forgot them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Final, TypeVar

import httpx
import openai

from models.engines.http_errors import NotAModelServer, NotServed, within
from models.errors import EngineError
from models.ports import Adapter

log = logging.getLogger(__name__)

LOAD_WITHIN_S: Final = 300.0  # a busy CPU server answers between two steps of its batch
ALREADY: Final = "already been loaded"

T = TypeVar("T")


class ServerAdapters:
    """Adapters by name. The server must see their folders under the same path as we do."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client
        self._folders: dict[str, Path] = {}
        self._loading = asyncio.Lock()

    async def add(self, adapter: Adapter) -> None:
        """Load an adapter, unless the server has a model of its name, and remember its folder."""
        self._folders[adapter.name] = adapter.folder
        await self._load(adapter.name)

    async def using(self, name: str | None, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` returns; if the server does not know the adapter `name`, load it first."""
        try:
            return await call()
        except NotServed:
            if name not in self._folders:
                raise
        await self._load(name)
        return await call()

    async def keep(self, names: Collection[str]) -> None:
        """Unload those of ours that are not among `names`."""
        for name in self._folders.keys() - set(names):
            del self._folders[name]
            try:
                await self._post("unload_lora_adapter", {"lora_name": name})
            except EngineError as error:  # it takes a slot that the next adapter may take over
                log.info("adapter %s was not unloaded: %s", name, error)

    async def _load(self, name: str) -> None:
        async with self._loading:  # whoever waited here finds it loaded: that is cheap
            folder = str(self._folders[name].absolute())
            try:
                await self._post("load_lora_adapter", {"lora_name": name, "lora_path": folder})
            except EngineError as error:
                if not (ALREADY in str(error) or await self._serves(name)):
                    raise _with_remedy(name, folder, error) from error
                return
            if name not in await served(self._client):
                raise NotAModelServer(f"the model server took adapter {name} and does not list it")
            log.info("the model server has loaded adapter %s from %s", name, folder)

    async def _post(self, path: str, body: dict[str, str]) -> None:
        call = self._client.post(f"/{path}", cast_to=httpx.Response, body=body)
        await within(LOAD_WITHIN_S, call)

    async def _serves(self, name: str) -> bool:
        """Whether a model of this name is there, as merged weights are."""
        try:
            return name in await served(self._client)
        except EngineError:
            return False


async def served(client: openai.AsyncOpenAI, within_s: float = 5.0) -> list[str]:
    """Names of the models and adapters that the server has, the base model first."""
    listed = await within(within_s, client.models.list())
    cards = getattr(listed, "data", None)
    names = [getattr(card, "id", None) for card in cards] if isinstance(cards, list) else [None]
    if not all(isinstance(name, str) and name and name.isprintable() for name in names):
        raise NotAModelServer(f"{client.base_url}models lists no models: {str(listed)[:200]!r}")
    return [str(name) for name in names]


def _with_remedy(adapter: str, folder: str, error: EngineError) -> EngineError:
    """404 comes from a server that cannot load adapters, or not this one: no other try helps."""
    if not isinstance(error, NotServed):
        return error
    return EngineError(
        f"the model server does not load the adapter {folder} ({error}); it must see that folder "
        "and be started so that it takes adapters (`palate vllm` does), or serve merged weights: "
        f"`palate vllm --merge` when {adapter} serves"
    )
