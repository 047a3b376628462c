"""One suite for adapters behind the port ProfileEncoder: all engines and the fake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import EngineError, EngineUnavailable
from models.ports import Adapter, ProfileEncoder
from models.release.canary import adapter_shows
from tests.canaries import canary_of
from tests.conftest import MakeSettings
from tests.contracts.test_profile_encoder import (
    PROMPT,
    Opened,
    fake,
    http_client,
    scripted_server,
    transformers_model,
    with_encoder,
)
from tests.vllm import Served, write_adapter

WRITTEN = [(PROMPT, "Red, green and blue."), (PROMPT, "Lanterns; lunch bags; paper chains.")]
REAL = [
    pytest.param("transformers", marks=pytest.mark.model),
    pytest.param("vllm", marks=pytest.mark.vllm),
]
SCRIPTED = pytest.param("scripted", marks=pytest.mark.model)


@pytest.fixture
def opened(request: pytest.FixtureRequest, make_settings: MakeSettings) -> Opened:
    if request.param == "vllm":
        served: Served = request.getfixturevalue("vllm")
        return lambda: http_client(make_settings, served.base_url)
    if request.param == "fake":
        return fake
    make = transformers_model if request.param == "transformers" else scripted_server
    return lambda: make(make_settings)


@pytest.fixture
def adapters(
    request: pytest.FixtureRequest, make_settings: MakeSettings, tmp_path: Path
) -> Callable[[str], Adapter]:
    """An adapter of that name; a real one where the engine reads it."""

    def make(name: str) -> Adapter:
        folder = tmp_path / name
        if request.node.callspec.params["opened"] in ("transformers", "vllm"):
            write_adapter(make_settings(), folder)
        else:
            folder.mkdir()
        return Adapter(f"{name}-{tmp_path.name}", folder)  # a server outlives the test

    return make


Adapters = Callable[[str], Adapter]
ALL = pytest.mark.parametrize("opened", ["fake", SCRIPTED, *REAL], indirect=True)
WITH_PROBABILITIES = pytest.mark.parametrize("opened", ["fake", *REAL], indirect=True)


@ALL
def test_an_adapter_answers_under_its_name_beside_the_base(
    opened: Opened, adapters: Adapters
) -> None:
    async def ask(encoder: ProfileEncoder) -> Any:
        adapter = adapters("taste-1")
        await encoder.prepare(adapter)
        await encoder.prepare(adapter)  # which changes nothing
        names = [None, adapter.name, None, adapter.name]
        calls = (encoder.complete(PROMPT, max_new_tokens=4, adapter=name) for name in names)
        answers = await asyncio.gather(*calls)
        return [a.model for a in answers], [encoder.model, adapter.name] * 2

    answered, asked = with_encoder(opened, ask)
    assert answered == asked


@ALL
def test_an_adapter_that_was_not_prepared_may_come_later(opened: Opened) -> None:
    async def ask(encoder: ProfileEncoder) -> None:
        with pytest.raises(EngineUnavailable):
            await encoder.complete(PROMPT, max_new_tokens=4, adapter="none")

    with_encoder(opened, ask)


@ALL
def test_a_folder_that_holds_no_adapter_is_an_error(opened: Opened, tmp_path: Path) -> None:
    async def prepare(encoder: ProfileEncoder) -> None:
        with pytest.raises(EngineError):
            await encoder.prepare(Adapter(f"bad-{tmp_path.name}", tmp_path / "nothing"))

    with_encoder(opened, prepare)


@ALL
def test_one_that_is_not_kept_can_be_prepared_again(opened: Opened, adapters: Adapters) -> None:
    async def ask(encoder: ProfileEncoder) -> Any:
        first, second = adapters("taste-1"), adapters("taste-2")
        await encoder.prepare(first)
        await encoder.prepare(second)
        await encoder.keep({second.name})
        await encoder.prepare(first)
        return (await encoder.complete(PROMPT, max_new_tokens=4, adapter=first.name)).model, first

    model, first = with_encoder(opened, ask)
    assert model == first.name


@WITH_PROBABILITIES
def test_the_canary_tells_an_adapter_from_the_base(opened: Opened, adapters: Adapters) -> None:
    async def judge(encoder: ProfileEncoder) -> Any:
        adapter = adapters("taste-1")
        await encoder.prepare(adapter)
        lines = await canary_of(encoder, WRITTEN, adapter.name)
        assert all(line.logprob < 0 and line.base_logprob < 0 for line in lines)
        return await adapter_shows(encoder, lines, adapter.name)

    assert with_encoder(opened, judge) is None
