"""What Prometheus is told of a training, whichever run it was found in."""

from __future__ import annotations

import math
from pathlib import Path

from prometheus_client import CollectorRegistry

from streams.metrics import TrainerMetrics
from trainer.gate.decision import Check, Verdict
from trainer.pipeline.job_metrics import fill
from trainer.pipeline.outcome import RunMemory, RunOutcome, load_memory, save_memory

SKIPPED = RunOutcome("skipped", "was made of this data, and the gate held it back", unserved=True)


def refused(**found: float) -> RunOutcome:
    checks = tuple(Check(rule, False, bound, 0.0, "") for rule, bound in found.items())
    return RunOutcome("refused", "", verdict=Verdict("r-1", "base-0", "base-0", 9, checks))


def told(outcome: RunOutcome, memory: RunMemory) -> CollectorRegistry:
    registry = CollectorRegistry()
    fill(TrainerMetrics(registry), outcome, memory)
    return registry


def gate(registry: CollectorRegistry, rule: str) -> tuple[float | None, float | None]:
    """Whether the rule was kept, and what it found."""
    labels = {"rule": rule}
    return (
        registry.get_sample_value("palate_training_gate_passed", labels),
        registry.get_sample_value("palate_training_gate_found", labels),
    )


def test_the_last_verdict_is_told_until_there_is_a_newer_one(tmp_path: Path) -> None:
    save_memory(tmp_path, RunMemory().after(refused(serving=-0.01, anchor=-math.inf), 5, "base-0"))
    later = load_memory(tmp_path).after(SKIPPED, 9, "base-0")
    again = told(SKIPPED, later)
    newer = told(refused(serving=-0.02), later.after(refused(serving=-0.02), 11, "base-0"))

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
