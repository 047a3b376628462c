"""A folder that holds no embedder is an error on purpose, whatever the library raises.

So is one whose weights could run code when they are read.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import EmbedderError
from models.settings import load_settings

pytestmark = pytest.mark.model  # imports torch


@pytest.mark.parametrize("modules", ["{", "[1]", '[{"idx": 0, "path": "", "type": "no.Module"}]'])
def test_a_damaged_folder_is_said_to_be_one(tmp_path: Path, modules: str) -> None:
    from models.engines.embedder import SentenceEmbedder

    (tmp_path / "modules.json").write_text(modules)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmbedderError, match="cannot be loaded"):
        SentenceEmbedder(tmp_path, load_settings().embedder)


@pytest.mark.parametrize(("beside", "said"), [((), "is a pickle"), (("other",), "safetensors")])
def test_pickled_weights_are_never_read(tmp_path: Path, beside: tuple[str, ...], said: str) -> None:
    from models.engines.embedder import SentenceEmbedder
    from tests.models.pickled import as_pickle
    from tests.trainer.learning.tiny_embedder import tiny_embedder

    folder = tiny_embedder(tmp_path, ["red", "mug"])
    SentenceEmbedder(folder, load_settings().embedder)
    as_pickle(folder)
    for name in beside:
        (folder / f"{name}.safetensors").touch()

    with pytest.raises(EmbedderError, match=f"cannot be loaded: .*{said}"):
        SentenceEmbedder(folder, load_settings().embedder)
