from __future__ import annotations

import asyncio

import numpy as np
from prometheus_client import CollectorRegistry

from models.errors import EngineError
from models.fakes import FakeEncoder, HashEmbedder, MemoryReleaseStore
from models.identity import text_hash
from models.profile.prompts import PROMPT_VERSION, render
from models.schemas import Origin, Profile, Section
from models.settings import Settings, load_settings
from streams.metrics import ProfilerMetrics
from streams.profiler.profile_version import RecordPosition
from streams.profiler.profile_writer import Deps, Writer, count_written
from streams.profiler.release_loader import LoadedRelease, Sources
from tests.streams.profiler.requests import request

GROUNDED = " white hanging lantern; red retrospot lunch bag"


def write(
    encoder: FakeEncoder | None, settings: Settings | None = None, **fields: object
) -> Profile:
    embedder = HashEmbedder()
    sources = Sources(MemoryReleaseStore(), lambda _: embedder)
    deps = Deps(encoder, embedder, lambda text: len(text.split()), sources)
    loaded = LoadedRelease("base-0", None, embedder)
    metrics = ProfilerMetrics(CollectorRegistry())
    writer = Writer(settings or load_settings(), deps, metrics)
    asked = request(**fields)

    async def written() -> Profile:
        return await writer.write(
            asked, RecordPosition(3, 77), loaded, await writer.ask(asked, loaded)
        )

    return asyncio.run(written())


def sentences(profile: Profile) -> list:
    return [one for section in Section for one in getattr(profile.sections, section.value)]


def test_the_prompt_is_that_of_the_request_alone() -> None:
    encoder = FakeEncoder([GROUNDED])
    profile = write(encoder)
    assert encoder.prompts == [render(request())]
    assert profile.prompt_hash == text_hash(render(request()))
    assert profile.prompt_version == PROMPT_VERSION


def test_a_profile_says_what_it_answers_and_what_it_cost() -> None:
    profile = write(FakeEncoder([GROUNDED]), number=4)
    asked = request(number=4)
    assert (profile.version, profile.applied_offset, profile.as_of) == (4, 10, asked.as_of)
    assert (profile.request_id, profile.windows_hash) == (asked.request_id, "w")
    assert (profile.request_partition, profile.request_offset) == (3, 77)
    assert (profile.model, profile.release, profile.vector_release) == ("fake", "base-0", "base-0")
    assert profile.tokens.completion == len(GROUNDED.split())
    assert profile.tokens.prompt > 0
    assert profile.sentences.kept > 0
    assert not profile.fallback


def test_the_vector_is_the_unit_embedding_of_the_text() -> None:
    profile = write(FakeEncoder([GROUNDED]))
    np.testing.assert_allclose(profile.vector, HashEmbedder().embed([profile.text])[0], atol=1e-6)


def test_without_an_answer_the_profile_is_extractive_and_marked() -> None:
    profile = write(FakeEncoder([EngineError("no")]))
    assert profile.fallback
    assert profile.model == "extractive"
    assert profile.text
    assert {one.origin for one in sentences(profile)} == {Origin.EXTRACTIVE}


def test_a_stand_in_and_the_profile_that_replaces_it_have_different_ids() -> None:
    stand_in, own = write(FakeEncoder([EngineError("no")])), write(FakeEncoder([GROUNDED]))
    assert stand_in.profile_id != own.profile_id
    assert stand_in.profile_id == write(FakeEncoder([EngineError("again")])).profile_id
    assert own.profile_id == write(FakeEncoder(["something else"])).profile_id


def test_the_extractive_engine_owes_nothing() -> None:
    profile = write(None)
    assert (profile.model, profile.fallback) == ("extractive", False)


def test_words_that_no_event_supports_do_not_reach_the_profile() -> None:
    profile = write(FakeEncoder([" scuba diving equipment; white hanging lantern"]))
    assert "scuba" not in profile.text
    assert profile.sentences.rejected >= 1


def test_what_was_written_is_counted() -> None:
    registry = CollectorRegistry()
    metrics = ProfilerMetrics(registry)
    for encoder in (FakeEncoder([GROUNDED]), FakeEncoder([EngineError("no")]), None):
        count_written(write(encoder), metrics)
    count = registry.get_sample_value
    for outcome in ("model", "fallback", "extractive"):
        assert count("palate_profiles_total", {"outcome": outcome}) == 1
    assert count("palate_tokens_total", {"kind": "completion"}) == len(GROUNDED.split())
    assert count("palate_sentences_total", {"outcome": "kept"})
