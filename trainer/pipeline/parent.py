"""What training goes on from, and what its result is compared with: releases that load here.

An adapter fits only the weights that it was trained on. After a change of model or embedder a
release's own models are of no use here, so training begins with the models as they come.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import ReleaseError
from models.ports import Release, ReleaseStore
from models.release.compatibility import cannot_load
from models.release.store import adapter_folder, embedder_folder
from models.settings import Settings
from trainer.data.replay_sampling import Seen, seen_by
from trainer.learning.stages import Models

AS_THEY_COME = Models(None, None)


@dataclass(frozen=True, slots=True)
class ParentModels:
    """A release beside which is trained, and what of it there is to go on from."""

    release: Release
    models: Models
    seen: Seen  # the data that `models` have learned from
    reason: str | None = None  # why `models` are not the release's own


def start_from(
    store: ReleaseStore, release: Release, settings: Settings, model_hash: str
) -> ParentModels:
    """From the release's models, or from nothing if they cannot be loaded here.

    `model_hash` as in models.release.compatibility. Raises ReleaseError if the release's files are
    not as they were published: training on from them would spread the damage.
    """
    reason = cannot_load(release, settings, model_hash)
    if reason:
        said = f"training begins anew, with a warm start: {reason}"
        return ParentModels(release, AS_THEY_COME, Seen(), said)
    store.verify(release.id)
    models = Models(adapter_folder(store, release), embedder_folder(store, release))
    return ParentModels(release, models, seen_by(release))


def rolled_back(store: ReleaseStore, name: str, serving: Release) -> bool:
    """Whether the release `name` surely is neither `serving` nor one that it went on from.

    False where manifests do not tell: one is gone or damaged, or a trained release names no parent.
    """
    release = serving
    for _ in store.ids():  # it can have gone on from no more
        if release.id == name or release.parent is None:
            break
        try:
            release = store.get(release.parent)
        except ReleaseError:
            return False
    return release.id != name and release.parent is None and release.kind != "trained"


def anchor_of(
    store: ReleaseStore, name: str, start: ParentModels, settings: Settings, model_hash: str
) -> ParentModels:
    """The release `name`; if it cannot be loaded here, `start` in its place, with the reason."""
    if name in ("", start.release.id):
        return start
    try:
        release = store.get(name)
        reason = cannot_load(release, settings, model_hash)
        if reason is None:
            return start_from(store, release, settings, model_hash)
    except ReleaseError as error:
        reason = str(error)
    said = f"{start.release.id} is the anchor from now on, in the place of {name}: {reason}"
    return ParentModels(start.release, start.models, start.seen, said)
