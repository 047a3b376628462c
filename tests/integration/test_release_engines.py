"""A release's adapter on the real engines: proven by the trainer's canary, then written with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.promotion import Topic, promote, releases_topic
from models.engines.model_files import language_model
from models.fakes import HashEmbedder, MemoryReleaseStore
from models.ports import CanaryLine, ProfileEncoder, Release
from models.profile.prompts import render
from models.release.store import base_release
from models.schemas import Profile
from models.settings import Settings
from streams.profiler.release_loader import Sources
from streams.releases import announce
from tests.conftest import MakeSettings
from tests.integration.test_profiler import Wire, profiler
from tests.patience import NEVER_S
from tests.streams.profiler.requests import AS_OF, request
from tests.vllm import Served, write_adapter

pytestmark = pytest.mark.model
TEXTS = (" white hanging lantern; red lunch bag", " lantern; lunch bag\nCurrent: paper chain kit")


@pytest.fixture(params=["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def settings(request: pytest.FixtureRequest, kafka: str, make_settings: MakeSettings) -> Settings:
    profile: dict[str, Any] = {"engine": "transformers", "max_new_tokens": 12, "batch": 2}
    if request.param == "vllm":
        served: Served = request.getfixturevalue("vllm")
        profile |= {"engine": "openai", "base_url": served.base_url}
    return make_settings(profile=profile, kafka={"partitions": 1})


@pytest.fixture
def encoder(settings: Settings) -> Iterator[ProfileEncoder]:
    if settings.profile.engine == "openai":
        from models.engines.openai_encoder import OpenAIEncoder

        yield OpenAIEncoder(settings.profile, language_model(settings))
    else:
        from models.engines.transformers_encoder import TransformersEncoder

        yield TransformersEncoder(language_model(settings), settings.profile)


def release(settings: Settings, folder: Path, store: MemoryReleaseStore) -> Release:
    """With a random adapter and the canary that a trainer would write for it."""
    name = f"taste-{folder.parent.name}"  # a server outlives the test
    adapter = write_adapter(settings, folder)
    base = base_release(settings, AS_OF)
    made = replace(base, id=name, adapter="adapter", canary=canary(settings, adapter))
    return store.publish(made, {"adapter": adapter})


def canary(settings: Settings, adapter: Path) -> tuple[CanaryLine, ...]:
    from trainer.learning.policy import Policy, policy_options
    from trainer.learning.policy_answers import canary_lines

    policy = Policy.load(language_model(settings), policy_options(settings), adapter=adapter)
    return canary_lines(policy, [(render(request()), text) for text in TEXTS])


async def indexed(topic: Topic, release: Release) -> None:
    """What an indexer says of a candidate."""
    await topic.releases.until(lambda found: found.candidate == release.id)
    for step in ("items-ready", "profiles-ready"):
        await announce(topic.producer, topic.settings, release, step, "indexer")


def test_an_adapter_is_proven_and_writes_once_its_release_serves(
    settings: Settings, encoder: ProfileEncoder, tmp_path: Path
) -> None:
    store = MemoryReleaseStore()
    candidate = release(settings, tmp_path / "adapter", store)

    async def scenario() -> list[Profile]:
        async with Wire(settings).open() as wire, releases_topic(settings) as topic:
            await wire.serve()
            sources = Sources(store, lambda _: HashEmbedder())
            parts = {"sources": sources, "count_tokens": encoder.count_tokens}
            async with profiler(settings, encoder, **parts):
                await wire.ask(request("before"))
                await wire.until(lambda: wire.of("before"))
                indexing = asyncio.create_task(indexed(topic, candidate))
                await promote(topic, store, candidate.id, within_s=NEVER_S)
                await indexing
                while wire.profiles[-1].release != candidate.id:
                    user = f"after-{len(wire.profiles)}"
                    await wire.ask(request(user))
                    await wire.until(lambda: wire.of(user))  # noqa: B023
            return wire.profiles

    profiles = asyncio.run(scenario())
    first, last = profiles[0], profiles[-1]
    assert (first.release, first.fallback) == ("base-0", False)
    assert first.model == settings.profile.model
    assert (last.release, last.model, last.fallback) == (candidate.id, candidate.id, False)
    assert last.text
