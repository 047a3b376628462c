"""A folder that holds no embedder is an error on purpose, whatever the library raises."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import EmbedderError
from models.settings import load_settings

pytestmark = pytest.mark.model  # imports torch


@pytest.mark.parametrize("modules", ["{", "[1]", '[{"idx": 0, "path": "", "type": "no.Module"}]'])
def test_a_damaged_folder_is_said_to_be_one(tmp_path: Path, modules: str) -> None:
    from models.embedder import SentenceEmbedder

    (tmp_path / "modules.json").write_text(modules)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmbedderError, match="cannot be loaded"):
        SentenceEmbedder(tmp_path, load_settings().embedder)
