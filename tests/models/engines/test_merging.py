from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from models.engines.model_files import ModelSource, language_model
from models.errors import EngineError
from models.ports import Adapter, CanaryLine
from models.release.canary import measure, verdict
from tests.conftest import MakeSettings
from tests.vllm import write_adapter

pytestmark = pytest.mark.model
TEXTS = [("Likes:", " white hanging lantern; lunch bag"), ("Now:", " paper chain kit")]


def test_merged_weights_say_what_the_adapter_says_and_leave_the_base_as_it_is(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    from models.engines.merging import write_merged
    from models.engines.transformers_encoder import TransformersEncoder

    settings = make_settings()
    source, adapter = language_model(settings), write_adapter(settings, tmp_path / "adapter")
    write_merged(source, adapter, tmp_path / "merged")

    async def measured(model: ModelSource, name: str | None) -> tuple[list[float], list[int]]:
        encoder: Any = TransformersEncoder(model, settings.profile)
        if name:
            await encoder.prepare(Adapter(name, adapter))
        told = await measure(encoder, TEXTS, name)
        tokens = [encoder.count_tokens(text) for _, text in TEXTS]
        await encoder.close()
        return told, tokens

    async def all_three() -> tuple[Any, ...]:
        models = ((source, None), (source, "taste-1"), (tmp_path / "merged", None))
        return tuple([await measured(*model) for model in models])

    (base, tokens), (adapted, _), (merged, _) = asyncio.run(all_three())
    lines = [
        CanaryLine(*text, own, other) for text, own, other in zip(TEXTS, adapted, base, strict=True)
    ]
    assert verdict(lines, merged, tokens) is None
    assert "base model" in (verdict(lines, base, tokens) or "")


def test_an_adapter_that_is_a_pickle_is_refused(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    from models.engines.merging import write_merged
    from tests.models.pickled import as_pickle

    settings = make_settings()
    adapter = write_adapter(settings, tmp_path / "adapter")
    as_pickle(adapter)

    with pytest.raises(EngineError, match=r"cannot be put on .*adapter_model\.bin is a pickle"):
        write_merged(language_model(settings), adapter, tmp_path / "merged")


def test_an_adapter_of_another_model_is_refused(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from models.engines.merging import write_merged

    settings = make_settings()
    adapter = write_adapter(settings, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    narrower = {name: tensor[:, :-1].contiguous() for name, tensor in weights.items()}
    save_file(narrower, adapter / "adapter_model.safetensors")
    with pytest.raises(EngineError, match="cannot be put on"):
        write_merged(language_model(settings), adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
