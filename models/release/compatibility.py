"""Whether a release can serve under these settings: asked before anything is loaded."""

from __future__ import annotations

from models.ports import Release
from models.profile.prompts import PROMPT_VERSION
from models.release.store import brings_embedder
from models.settings import Settings


def unfit(release: Release, settings: Settings, model_hash: str = "") -> str | None:
    """Why the release should not serve here, with what to do; None if nothing speaks against it.

    `model_hash` is `base_model_hash` (models/engines/model_files.py) of the language model here; a
    hash that either side does not know (empty) is not compared.
    """
    if release.prompt_version != PROMPT_VERSION:
        return (
            f"release {release.id!r} was made for prompts {release.prompt_version!r}, this is "
            f"{PROMPT_VERSION!r}; train one for it"
        )
    return (
        _other_model(release, settings, model_hash)
        or other_embedder(release, settings)
        or _other_windows(release, settings)
    )


def cannot_load(release: Release, settings: Settings, model_hash: str = "") -> str | None:
    """Why the release's models do not go with those here; None if they do.

    Milder than `unfit`: one that serves already goes on after a change of windows.
    """
    model = _other_model(release, settings, model_hash) if release.adapter else None
    return model or other_embedder(release, settings)


def held_back(release: Release) -> str | None:
    """Why the trainer's gate did not let it serve, by `metrics["gate"]`; None if it did."""
    gate = release.metrics.get("gate") or {}
    if gate.get("passed", True):
        return None
    return "; ".join(map(str, gate.get("reasons") or ())) or "no reason was written down"


def _other_model(release: Release, settings: Settings, model_hash: str) -> str | None:
    if release.base_model != settings.profile.model:
        return (
            f"release {release.id!r} goes with the model {release.base_model!r}, profile.model is "
            f"{settings.profile.model!r}; set it back, or train a release for it"
        )
    if release.base_model_hash and model_hash and release.base_model_hash != model_hash:
        return (
            f"release {release.id!r} was trained on other weights of {release.base_model!r} "
            f"({release.base_model_hash[:12]}…, here {model_hash[:12]}…); an adapter fits only its "
            "own"
        )
    return None


def other_embedder(release: Release, settings: Settings) -> str | None:
    """Why the release's embedder is not to be had here; None if it is its own or the configured."""
    if brings_embedder(release) or release.embedder == settings.embedder.model:
        return None
    return (
        f"release {release.id!r} embeds with {release.embedder!r}, embedder.model is "
        f"{settings.embedder.model!r}; set it back, or train a release for it"
    )


def _other_windows(release: Release, settings: Settings) -> str | None:
    here = settings.windows.model_dump(mode="json")
    other = sorted(
        name
        for name in here.keys() | release.window_spec.keys()
        if here.get(name) != release.window_spec.get(name)
    )
    if not other:
        return None
    return (
        f"release {release.id!r} was made for other windows ({', '.join(other)}); set them back, "
        "or train a release for them"
    )
