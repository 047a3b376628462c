from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from deploy import release_weights
from deploy.commands import vllm as module
from models.errors import ReleaseError, SettingsError, StackError
from models.ports import Release
from models.release.store import FolderReleaseStore, base_release
from models.settings import load_settings


@pytest.fixture(autouse=True)
def _without_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "has_gpu", lambda: False)
    monkeypatch.setattr(module, "language_model", lambda _: Path("the/model"))
    monkeypatch.setattr(module, "_release", lambda *_: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Release:
    """A release with an adapter, in the store of the working directory; it serves."""
    adapter = tmp_path / "made"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_bytes(orjson.dumps({"r": 8}))
    base = base_release(load_settings(), 1_600_000_000_000)
    release = FolderReleaseStore(Path("var/releases")).publish(
        replace(base, id="taste-1", adapter="adapter"), {"adapter": adapter}
    )
    monkeypatch.setattr(module, "_release", lambda *_: release)
    return release


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


def test_later_adapters_fit_without_a_lora_now(capsys: pytest.CaptureFixture[str]) -> None:
    module.vllm(print_=True)
    line = capsys.readouterr().out
    assert "--enable-lora --max-loras 4 --max-lora-rank 8" in line
    assert "--lora-modules" not in line
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=true" in line


def test_the_releases_adapter_is_served_under_the_releases_id(
    released: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    module.vllm(print_=True)
    assert f"--lora-modules taste-1={Path.cwd()}/var/releases/taste-1/adapter" in (
        capsys.readouterr().out
    )


def test_merged_weights_are_served_under_the_releases_id_and_take_no_adapters(
    released: Release, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Path] = []

    def merge(_: object, adapter: Path, folder: Path) -> None:
        made.append(adapter)
        (folder / "model.safetensors").write_text("merged")

    fake = SimpleNamespace(write_merged=merge)
    monkeypatch.setitem(sys.modules, "models.engines.merging", fake)
    monkeypatch.setattr(release_weights, "language_model", lambda _: Path("the/model"))
    for _ in range(2):
        module.vllm(merge=True, print_=True)
    line = capsys.readouterr().out.splitlines()[-1]
    assert "--model var/models/merged-taste-1 --served-model-name taste-1" in line
    assert "--enable-lora" not in line
    assert [path.parent.name for path in made] == ["taste-1"]


def test_what_cannot_be_merged_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReleaseError, match="no release serves"):
        module.vllm(merge=True, print_=True)
    plain = base_release(load_settings(), 1_600_000_000_000)
    FolderReleaseStore(Path("var/releases")).publish(plain)
    monkeypatch.setattr(module, "_release", lambda *_: plain)
    with pytest.raises(ReleaseError, match="no adapter"):
        module.vllm(merge=True, print_=True)


def test_adapters_of_ones_own_are_not_mixed_with_a_releases(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(orjson.dumps({"r": 8}))
    with pytest.raises(SettingsError, match="leave out"):
        module.vllm(lora=[f"mine={tmp_path}"], merge=True, print_=True)


def test_stopping_what_does_not_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    module.vllm(stop=True)
    assert "was not running" in capsys.readouterr().out
