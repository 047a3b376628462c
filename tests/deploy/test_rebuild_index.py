from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from deploy.commands.rebuild_index import rebuild_index
from models.errors import VectorIndexError
from models.ranking.cooccurrence import current_id
from models.ranking.lance_index import LanceIndex


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PALATE_DATA_DIR", str(tmp_path))
    return tmp_path


def test_it_refuses_while_an_indexer_writes(data_dir: Path) -> None:
    with (
        closing(LanceIndex(str(data_dir / "lancedb"), writer=True)),
        pytest.raises(VectorIndexError, match="another process writes"),
    ):
        rebuild_index(cooccurrence_only=False)


def test_counting_again_needs_no_broker(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rebuild_index(cooccurrence_only=True, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said == {"cooccurrence": current_id(data_dir / "cooccurrence"), "cooccurrence_items": 0}
