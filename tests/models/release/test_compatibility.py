from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from models.release.compatibility import cannot_load, held_back, unfit
from models.release.store import base_release
from models.settings import Settings

SETTINGS = Settings()
RELEASE = base_release(SETTINGS, 1_600_000_000_000)


def test_the_base_release_fits_the_settings_that_made_it() -> None:
    assert unfit(RELEASE, SETTINGS) is None


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"prompt_version": "lines-0"}, "prompts 'lines-0'"),
        ({"base_model": "other/model"}, "profile.model is"),
        ({"base_model_hash": "aa" * 32}, "other weights"),
        ({"window_spec": {**RELEASE.window_spec, "long_days": 1.0}}, r"windows \(long_days\)"),
        ({"window_spec": {}}, "other windows"),
        ({"embedder": "other/embedder"}, "embedder.model is"),
    ],
)
def test_a_release_for_something_else_is_refused_with_the_reason(
    other: dict[str, Any], reason: str
) -> None:
    found = unfit(replace(RELEASE, **other), SETTINGS, model_hash="bb" * 32)
    assert found is not None
    assert re.search(reason, found)


def test_a_hash_that_one_side_does_not_know_is_not_compared() -> None:
    assert unfit(replace(RELEASE, base_model_hash="aa"), SETTINGS) is None
    assert unfit(RELEASE, SETTINGS, model_hash="bb") is None


def test_an_embedder_of_its_own_fits_whatever_the_settings_name() -> None:
    own = replace(RELEASE, embedder="embedder", files={"embedder/model.safetensors": "aa"})
    assert unfit(own, SETTINGS) is None


def test_one_that_serves_goes_on_after_a_change_of_windows_or_of_a_model_that_it_leaves_alone() -> (
    None
):
    changed = {"window_spec": {}, "prompt_version": "lines-0", "base_model": "other/model"}
    assert cannot_load(replace(RELEASE, **changed), SETTINGS) is None
    adapted = replace(RELEASE, adapter="adapter", **changed)
    assert "profile.model is" in (cannot_load(adapted, SETTINGS) or "")
    assert "embedder.model is" in (cannot_load(replace(RELEASE, embedder="x/y"), SETTINGS) or "")


def test_a_gates_refusal_is_read_from_the_metrics() -> None:
    refused = {"gate": {"passed": False, "reasons": ["ndcg@10 fell", "profiles grew"]}}
    assert held_back(replace(RELEASE, metrics=refused)) == "ndcg@10 fell; profiles grew"
    assert held_back(replace(RELEASE, metrics={"gate": {"passed": True}})) is None
    assert held_back(RELEASE) is None
