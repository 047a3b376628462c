from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from models.engines.model_files import language_model
from models.errors import EngineError, EngineUnavailable
from tests.conftest import MakeSettings

pytestmark = pytest.mark.model
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def encoder_of(make_settings: MakeSettings, **profile: object) -> Any:
    from models.engines.transformers_encoder import TransformersEncoder  # torch, only if wanted

    settings = make_settings(profile=profile)
    return TransformersEncoder(language_model(settings), settings.profile)


def test_the_converted_model_still_knows_what_it_knew(make_settings: MakeSettings) -> None:
    async def ask() -> str:
        encoder = encoder_of(make_settings)
        try:
            return (await encoder.complete(QUESTION, max_new_tokens=8)).text
        finally:
            await encoder.close()

    assert "Paris" in asyncio.run(ask())


def test_closing_cuts_the_batch_under_way(make_settings: MakeSettings) -> None:
    async def close_early() -> object:
        encoder, begun = encoder_of(make_settings), threading.Event()
        generate = encoder._generate
        encoder._generate = lambda *job: begun.set() or generate(*job)
        asked = asyncio.create_task(encoder.complete(QUESTION, max_new_tokens=7_000))
        assert await asyncio.to_thread(begun.wait, 60)
        await encoder.close()  # 7,000 tokens would outlast the test's own time limit
        (answer,) = await asyncio.gather(asked, return_exceptions=True)
        return answer

    assert isinstance(asyncio.run(close_early()), asyncio.CancelledError)


def test_a_batch_that_takes_too_long_ends_early(make_settings: MakeSettings) -> None:
    async def ask() -> int:
        encoder = encoder_of(make_settings, timeout_s=0.001)
        try:
            return (await encoder.complete(QUESTION, max_new_tokens=500)).completion_tokens
        finally:
            await encoder.close()

    assert asyncio.run(ask()) < 10


def test_a_prompt_longer_than_the_model_reads_is_refused(make_settings: MakeSettings) -> None:
    async def ask() -> None:
        encoder = encoder_of(make_settings)
        try:
            await encoder.complete("tea " * 9_000, max_new_tokens=8)
        finally:
            await encoder.close()

    with pytest.raises(EngineError) as raised:
        asyncio.run(ask())
    assert not isinstance(raised.value, EngineUnavailable)


def test_pickled_weights_are_never_read(make_settings: MakeSettings, tmp_path: Path) -> None:
    from models.engines.transformers_encoder import TransformersEncoder
    from tests.models.pickled import as_pickle
    from tests.trainer.learning.tiny_models import tiny_llama

    folder = tiny_llama(tmp_path)
    as_pickle(folder)

    with pytest.raises(EngineError, match=r"cannot be loaded: .*pytorch_model\.bin is a pickle"):
        TransformersEncoder(folder, make_settings().profile)
    (folder / "other.safetensors").touch()
    with pytest.raises(EngineError, match=r"cannot be loaded: .*safetensors"):
        TransformersEncoder(folder, make_settings().profile)
