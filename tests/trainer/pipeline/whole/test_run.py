"""A whole run with real, tiny models: log → release and verdict."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from models.engines.embedder import SentenceEmbedder
from models.engines.model_files import language_model
from models.engines.tokens import token_counter
from models.fakes import FakeEncoder, HashEmbedder
from models.ports import Release
from models.profile.assembly import Composed, compose
from models.release.compatibility import unfit
from models.release.store import BASE_RELEASE, adapter_folder, embedder_folder, embedder_hash
from models.training_settings import TrainSettings
from streams.event_log import SegmentLog
from streams.profiler.release_loader import ReleaseLoader, Sources
from tests.trainer.pipeline.whole.running import Stopped, made, metrics, train
from tests.trainer.small_run import QUICK, SMALL, fill, run_once
from trainer.data.canary_prompts import canary_prompts
from trainer.data.corpus import Corpus
from trainer.learning.policy import Policy
from trainer.reward import rewarder as judging

pytestmark = pytest.mark.model  # a minute of small training runs


def test_a_run_leaves_a_release_that_says_all_about_itself(settings, store) -> None:
    fill(settings)
    outcome = train(settings)
    release = made(store, outcome)

    assert outcome.ending in ("passed", "refused")
    assert [stage.name for stage in outcome.stages] == ["warm-start", "contrastive-1", "rlso-1"]
    assert outcome.verdict is not None
    assert outcome.verdict.serving == BASE_RELEASE
    assert (release.kind, release.parent) == ("trained", BASE_RELEASE)
    assert release.metrics["gate"]["passed"] == outcome.verdict.passed
    assert len(release.metrics["gate"]["checks"]) == len(outcome.verdict.checks)
    for figure in ("ranking", "profile_only", "shuffled", "grounding"):
        found = release.metrics[figure]
        assert found["low"] <= found["mean"] <= found["high"]
    assert sum(release.data_range["next_offsets"].values()) == outcome.new_events == 240
    assert release.data_range["train_end"] < release.data_range["end"]
    assert release.window_spec == settings.windows.model_dump(mode="json")
    assert release.base_model_hash
    assert all(line.logprob < 0 and line.base_logprob < 0 for line in release.canary)
    corpus = Corpus.from_log(SegmentLog(settings.log_dir), settings)
    assert {line.prompt for line in release.canary} <= set(canary_prompts(corpus, 0))
    folder = adapter_folder(store, release)
    assert folder is not None
    assert (folder / "adapter_model.safetensors").stat().st_size > 0
    told = metrics(settings)
    assert told[f"palate_training_outcome/{outcome.ending}"] == 1
    assert told["palate_training_optimiser_steps/warm-start"] == 2
    assert told["palate_training_new_events"] == 240
    assert told["palate_training_seconds"] == outcome.seconds > 0


ALONE = {
    "warm-start": {},
    "contrastive-1": {"contrastive": SMALL["contrastive"] | {"validation_users": 0}},
    "rlso-1": {"rlso": SMALL["rlso"]},
}


@pytest.mark.parametrize("stage", ALONE)
def test_each_stage_alone_makes_a_release_that_can_serve(quick, store, stage: str) -> None:
    others = {} if stage == "warm-start" else {"warm_start": {"steps": 0}}
    alone = TrainSettings.model_validate(QUICK | others | ALONE[stage])
    settings = quick.model_copy(update={"train": alone})
    promoted: list[Release] = []
    fill(settings)
    outcome = train(settings, promote=promoted.append)
    release = made(store, outcome)

    assert [one.name for one in outcome.stages] == [stage]
    assert promoted == [release]
    assert unfit(release, settings, release.base_model_hash) is None
    learned_words, learned_vectors = stage != "contrastive-1", stage == "contrastive-1"
    assert bool(adapter_folder(store, release)) == bool(release.canary) == learned_words
    assert bool(embedder_folder(store, release)) == learned_vectors


def test_an_embedder_that_was_trained_alone_is_proven_and_gone_on_from(quick, store) -> None:
    """Without an adapter there is no canary to show; the next run has a warm start to make up."""
    only_cl = QUICK | {"warm_start": {"steps": 0}} | ALONE["contrastive-1"]
    fill(quick)
    first = made(
        store,
        train(quick.model_copy(update={"train": TrainSettings.model_validate(only_cl)})),
    )
    sources = Sources(store, lambda folder: SentenceEmbedder(folder, quick.embedder))
    kits = ReleaseLoader(quick, FakeEncoder(), HashEmbedder(), sources)
    assert asyncio.run(kits.prove(first.id)) is None

    fill(quick, first_day=20, days=4)
    outcome = train(quick, serving=first.id)
    second = made(store, outcome)
    assert [one.name for one in outcome.stages] == ["warm-start"]
    assert adapter_folder(store, second)
    assert embedder_hash(second) == embedder_hash(first)


def test_profiles_are_learned_from_and_judged_at_the_length_that_they_are_served_with(
    settings, store, monkeypatch
) -> None:
    made: list[str] = []

    def remembering(*args: Any, **options: Any) -> Composed:
        composed = compose(*args, **options)
        made.append(composed.text)
        return composed

    def longest(max_tokens: int) -> int:
        made.clear()
        profile = settings.profile.model_copy(update={"max_tokens": max_tokens})
        outcome = train(settings.model_copy(update={"profile": profile}))
        assert [one.name for one in outcome.stages] == ["warm-start", "contrastive-1", "rlso-1"]
        return max(map(count, made))

    fill(settings)
    count = token_counter(language_model(settings))
    monkeypatch.setattr(judging, "compose", remembering)
    assert longest(256) > 64 >= longest(64)


def test_a_run_notes_that_profiles_are_served_with_another_temperature(quick, store) -> None:
    fill(quick)
    profile = quick.profile.model_copy(update={"temperature": 0.7})
    (note,) = train(quick.model_copy(update={"profile": profile})).notes
    assert note.startswith("profiles are served with profile.temperature 0.7, and written")


def policies() -> set[Policy]:
    """The models in memory; tracebacks of tests before may hold some."""
    return {one for one in gc.get_objects() if type(one) is Policy}


def test_no_model_is_held_beside_the_one_that_learns(quick, store) -> None:
    held: list[set[Policy]] = []

    def look(stage: str, *_: int) -> None:
        if stage == "warm-start":
            held.append(policies())
            raise Stopped

    fill(quick)
    gc.collect()
    before = policies()
    with pytest.raises(Stopped):
        run_once(quick, look)
    assert len(held[0] - before) == 1
