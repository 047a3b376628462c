"""What Prometheus is told of a training, whichever run it was found in."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from models.release.store import FolderReleaseStore, base_release
from models.training_settings import GateSettings
from streams.metrics import TrainerMetrics
from trainer.gate.decision import Check, Measured, Verdict
from trainer.pipeline.job_metrics import fill
from trainer.pipeline.outcome import RunMemory, RunOutcome
from trainer.pipeline.release_writer import last_verdict, metrics_of
from trainer.reward.reward_hacking import WatchFigures

SKIPPED = RunOutcome("skipped", "was made of this data, and the gate held it back", unserved=True)


def refused(**found: float) -> RunOutcome:
    checks = tuple(Check(rule, False, bound, 0.0, "") for rule, bound in found.items())
    return RunOutcome("refused", "", verdict=Verdict("r-1", "base-0", "base-0", 9, checks))


def told(
    outcome: RunOutcome, memory: RunMemory, judged: Verdict | None = None
) -> CollectorRegistry:
    registry = CollectorRegistry()
    fill(TrainerMetrics(registry), outcome, memory, judged)
    return registry


def gate(registry: CollectorRegistry, rule: str) -> tuple[float | None, float | None]:
    """Whether the rule was kept, and what it found."""
    labels = {"rule": rule}
    return (
        registry.get_sample_value("palate_training_gate_passed", labels),
        registry.get_sample_value("palate_training_gate_found", labels),
    )


def manifest(name: str, outcome: RunOutcome) -> dict[str, Any]:
    """Of a release that was judged so, as far as the gate goes."""
    verdict = outcome.verdict
    assert verdict is not None
    measured = Measured(name, *[np.zeros(0)] * 4, tokens=0.0, watch=WatchFigures(0, 0, 0, 0, 0))
    metrics = metrics_of(measured, replace(verdict, candidate=name), GateSettings())
    return {"id": name, "kind": "trained", "metrics": metrics}


def test_the_last_verdict_is_told_until_there_is_a_newer_one(make_settings) -> None:
    store = FolderReleaseStore(make_settings().releases_dir)
    base = base_release(make_settings(), 0)
    store.publish(base)
    store.publish(replace(base, **manifest("r-1", refused(serving=-0.01, anchor=-math.inf))))
    again = told(SKIPPED, RunMemory(), last_verdict(store, ["r-1", "base-0", "gone"]))
    store.publish(replace(base, **manifest("r-2", refused(serving=-0.02))))
    newer = told(SKIPPED, RunMemory(), last_verdict(store, ["r-1", "r-2"]))

    assert gate(again, "serving") == (0, -0.01)
    assert gate(again, "anchor") == (0, -math.inf)
    assert gate(newer, "serving") == (0, -0.02)
    assert gate(newer, "anchor") == (None, None)


def test_a_skip_because_of_a_refusal_does_not_move_the_last_success() -> None:
    after = (
        RunMemory().after(refused(serving=-0.01), 5_000, "base-0").after(SKIPPED, 9_000, "base-0")
    )
    found = told(SKIPPED, after)

    assert found.get_sample_value("palate_training_last_success_timestamp_seconds") == 0
    assert found.get_sample_value("palate_training_last_run_timestamp_seconds") == 9


def test_where_nothing_was_judged_yet_no_rule_is_told() -> None:
    assert gate(told(SKIPPED, RunMemory()), "serving") == (None, None)
