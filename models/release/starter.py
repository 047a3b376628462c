"""The release that comes with Palate: an adapter for the default language model, in models/starter.

It takes the place of base-0 at the first start where it fits the configured models.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, NamedTuple

from models.engines.model_files import base_model_hash
from models.errors import ReleaseError
from models.ports import Release
from models.profile.prompts import PROMPT_VERSION
from models.release.compatibility import cannot_load
from models.release.files import MANIFEST, file_hash
from models.release.store import read_manifest
from models.settings import Settings

log = logging.getLogger(__name__)

FOLDER: Final = Path(__file__).parents[1] / "starter"
ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")  # as PEFT names them


class Starter(NamedTuple):
    """A release that can be published, and its files by relative path."""

    release: Release
    files: dict[str, Path]


def fitting_starter(settings: Settings, folder: Path = FOLDER) -> Starter | None:
    """The starter release if it is wanted, there, and fits the configured models."""
    profile = settings.profile
    wanted = profile.starter and profile.engine != "extractive" and profile.served_model is None
    if not wanted or not (folder / MANIFEST).is_file():
        return None
    starter = read_starter(folder)
    reason = _unfit(starter.release, settings)
    if reason:
        log.info("the starter release is left aside: %s", reason)
    return None if reason else starter


def read_starter(folder: Path = FOLDER) -> Starter:
    """The starter release as it lies in its folder. Raises ReleaseError if it is damaged."""
    try:
        release = read_manifest((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{folder / MANIFEST} is not a release manifest: {error}") from error
    files = {f"{release.adapter}/{name}": folder / name for name in ADAPTER_FILES}
    missing = [path.name for path in files.values() if not path.is_file()]
    if release.adapter is None or missing:
        raise ReleaseError(
            f"{folder} lacks {', '.join(missing) or 'an adapter'}: restore it from the repository, "
            "or set profile.starter to false"
        )
    wrong = [name for name, path in files.items() if file_hash(path) != release.files.get(name)]
    if wrong:
        raise ReleaseError(
            f"{folder}: {', '.join(wrong)} is not as the manifest says; restore it from the "
            "repository, or set profile.starter to false"
        )
    return Starter(release, files)


def _unfit(release: Release, settings: Settings) -> str | None:
    """Windows may be others: the adapter writes what any windows hold."""
    if release.prompt_version != PROMPT_VERSION:
        return f"it was trained for prompts {release.prompt_version}, this is {PROMPT_VERSION}"
    local = settings.profile.engine == "transformers"
    return cannot_load(release, settings, base_model_hash(settings) if local else "")
