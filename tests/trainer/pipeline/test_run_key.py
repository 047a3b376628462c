"""Which settings make a run another one, and which do not."""

from __future__ import annotations

from typing import Any

import pytest

from models.settings import Settings
from trainer.pipeline.run_key import judging_key, learning_key


@pytest.fixture
def settings(make_settings) -> Settings:
    return make_settings()


def with_train(settings: Settings, group: str, **changes: Any) -> Settings:
    """With `train.<group>` changed; group "" is `train` itself."""
    train = settings.train
    if group:
        changes = {group: getattr(train, group).model_copy(update=changes)}
    return settings.model_copy(update={"train": train.model_copy(update=changes)})


def key(settings: Settings) -> str:
    return learning_key(settings, "weights", "owner/embedder")


@pytest.mark.parametrize(
    ("group", "changes"),
    [
        ("", {"pushgateway": "localhost:9091"}),
        ("", {"metrics_file": "elsewhere.prom"}),
        ("gate", {"users": 7, "margin": 0.5}),
        ("evaluation", {"users": 7, "ks": (10, 50)}),
        ("sasrec", {"epochs": 1}),
        ("rlso", {"vllm_url": "http://localhost:8000/v1"}),
        ("sessions", {"min_new_events": 7}),
    ],
)
def test_a_run_goes_on_when_what_changes_is_not_learned_with(
    settings, group: str, changes: dict[str, Any]
) -> None:
    assert key(with_train(settings, group, **changes)) == key(settings)


@pytest.mark.parametrize(
    ("group", "changes"),
    [
        ("", {"rounds": 2}),
        ("", {"passes": 0.5}),
        ("sessions", {"horizon": 3}),
        ("policy", {"rank": 4}),
        ("warm_start", {"steps": 7}),
        ("contrastive", {"temperature": 0.1}),
        ("rlso", {"kl": 0.5}),
        ("gate", {"metric": "mrr"}),
        ("evaluation", {"seed": 1}),
    ],
)
def test_a_run_is_another_one_when_it_learns_otherwise(
    settings, group: str, changes: dict[str, Any]
) -> None:
    assert key(with_train(settings, group, **changes)) != key(settings)


def test_a_run_is_another_one_with_other_models_windows_or_lengths(settings) -> None:
    windows = settings.windows.model_copy(update={"medium_days": 3})
    masked = settings.ranking.model_copy(update={"exclude_seen": not settings.ranking.exclude_seen})
    shorter = {"max_tokens": 64}, {"max_new_tokens": 64}
    profiles = [settings.profile.model_copy(update=one) for one in shorter]
    found = {
        key(settings),
        *(key(settings.model_copy(update={"profile": one})) for one in profiles),
        learning_key(settings, "others", "owner/embedder"),
        learning_key(settings, "weights", "owner/another"),
        key(settings.model_copy(update={"windows": windows})),
        key(settings.model_copy(update={"ranking": masked})),
    }
    assert len(found) == 7


@pytest.mark.parametrize(
    ("changes", "another"),
    [
        ({"train": {"gate": {"margin": 0.01}}}, True),
        ({"train": {"gate": {"users": 7}}}, True),
        ({"ranking": {"diversity": 0.5}}, True),
        ({"index": {"pair_half_life_days": 7}}, True),
        ({"train": {"sessions": {"horizon": 3}}}, False),
        ({"ranking": {"tick_s": 1.0}}, False),
        ({"index": {"linger_s": 1.0}}, False),
    ],
)
def test_a_verdict_may_be_another_where_the_gate_measures_or_judges_otherwise(
    make_settings, changes: dict[str, Any], another: bool
) -> None:
    assert (judging_key(make_settings(**changes)) != judging_key(make_settings())) == another
