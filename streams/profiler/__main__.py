"""`python -m streams.profiler`: choose the engine and the embedder, then serve."""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import CollectorRegistry

from models.engines.model_files import ModelSource, base_model_hash, embedder_model, language_model
from models.engines.threads import wait_without_spinning
from models.ports import ProfileEncoder
from models.release.store import FolderReleaseStore
from models.settings import Settings, load_settings
from streams.profiler.profile_writer import Deps
from streams.profiler.release_loader import Sources
from streams.profiler.role import Profiler
from streams.service import run_role, until_stopped

log = logging.getLogger("streams.profiler")  # not __main__


def main() -> None:
    """Write profiles until SIGTERM."""
    wait_without_spinning()
    settings = load_settings()

    async def write_profiles(stop: asyncio.Event) -> None:
        deps = await until_stopped(stop, asyncio.to_thread(load_deps, settings))
        if deps is not None:
            await Profiler(settings, deps, CollectorRegistry()).run(stop)

    run_role("profiler", settings, write_profiles)


def load_deps(settings: Settings) -> Deps:
    """The models that the settings name; takes seconds, and longer at the very first start."""
    from models.engines.embedder import SentenceEmbedder
    from models.engines.tokens import token_counter

    source = language_model(settings)
    log.info("loading the language model and the embedder")
    encoder = _encoder(settings, source)
    return Deps(
        encoder=encoder,
        embedder=SentenceEmbedder(embedder_model(settings), settings.embedder),
        count_tokens=encoder.count_tokens if encoder else token_counter(source),
        sources=Sources(
            releases=FolderReleaseStore(settings.releases_dir),
            load_embedder=lambda folder: SentenceEmbedder(folder, settings.embedder),
            model_hash=base_model_hash(settings),
        ),
    )


def _encoder(settings: Settings, source: ModelSource) -> ProfileEncoder | None:
    if settings.profile.engine == "transformers":
        from models.engines.transformers_encoder import TransformersEncoder

        return TransformersEncoder(source, settings.profile)
    if settings.profile.engine == "openai":
        from models.engines.openai_encoder import OpenAIEncoder

        return OpenAIEncoder(settings.profile, source)
    return None


if __name__ == "__main__":
    main()
