"""What a model server needs of a release: its adapter, or weights with the adapter in them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from filelock import FileLock

from deploy.console import run
from deploy.promotion import releases_topic, serving_of
from models.durable import making
from models.engines.model_files import language_model
from models.errors import ReleaseError, StackError
from models.ports import Release
from models.release.store import FolderReleaseStore, adapter_folder
from models.settings import Settings

LOOK_WITHIN_S: Final = 5.0


def serving_release(settings: Settings) -> Release | None:
    """The release that serves, checked; None if Kafka is away or none serves yet."""
    store = FolderReleaseStore(settings.releases_dir)
    try:
        serving = run(_serving_id(settings, store))
    except StackError:
        return None
    return store.verify(serving) if serving else None


async def _serving_id(settings: Settings, store: FolderReleaseStore) -> str | None:
    async with releases_topic(settings, within_s=LOOK_WITHIN_S) as topic:
        return serving_of(topic.releases, store) if topic.releases.id else None


def adapter_of(settings: Settings, release: Release) -> Path | None:
    """Where the release's adapter lies, if it has one."""
    return adapter_folder(FolderReleaseStore(settings.releases_dir), release)


def merged_weights(settings: Settings, release: Release) -> Path:
    """A model folder with the release's adapter in its weights; made once, by one rename.

    Raises ReleaseError if the release has no adapter, StackError if the disk cannot take it.
    """
    adapter = adapter_of(settings, release)
    if adapter is None:
        raise ReleaseError(
            f"release {release.id!r} has no adapter; palate vllm without --merge serves it"
        )
    target = settings.models_dir / f"merged-{release.id}"
    settings.models_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.models_dir / f".{target.name}.lock"):
        if not target.is_dir():
            _merge(settings, adapter, target)
    return target


def _merge(settings: Settings, adapter: Path, target: Path) -> None:
    from models.engines.merging import write_merged  # torch and peft

    try:
        with making(target) as unfinished:
            write_merged(language_model(settings), adapter, unfinished)
    except OSError as error:
        raise StackError(f"merged weights cannot be written to {target}: {error}") from error
