from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from deploy.commands import vllm as module
from models.errors import SettingsError, StackError


@pytest.fixture(autouse=True)
def _without_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "has_gpu", lambda: False)
    monkeypatch.setattr(module, "language_model", lambda _: Path("the/model"))
    monkeypatch.chdir(tmp_path)


def test_print_shows_a_line_that_can_be_run_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_bytes(orjson.dumps({"r": 8}))
    module.vllm(lora=[f"taste-1={tmp_path}"], port=18123, print_=True)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "VLLM_CPU_KVCACHE_SPACE=" in line
    assert "--model the/model" in line
    assert "--port 18123" in line
    assert f"taste-1={tmp_path}" in line
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("pair", ["taste-1", "=folder", "taste-1="])
def test_an_adapter_is_given_as_name_and_folder(pair: str) -> None:
    with pytest.raises(SettingsError, match="NAME=DIR"):
        module.vllm(lora=[pair], print_=True)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"adapter_config\.json"):
        module.vllm(lora=[f"taste-1={tmp_path}"], print_=True)


def test_stopping_what_does_not_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    module.vllm(stop=True)
    assert "was not running" in capsys.readouterr().out
