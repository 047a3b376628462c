"""A run's metrics for Prometheus, by the two usual ways for jobs: a text file and a Pushgateway."""

from __future__ import annotations

import logging
from http.client import HTTPException
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, push_to_gateway, write_to_textfile

from models.settings import Settings
from streams.metrics import TrainerMetrics
from trainer.gate.decision import Verdict
from trainer.pipeline.outcome import Ending, RunMemory, RunOutcome

log = logging.getLogger(__name__)

JOB = "palate_trainer"


def publish(
    settings: Settings, outcome: RunOutcome, memory: RunMemory, judged: Verdict | None
) -> None:
    """Write the file and push, where a gateway is set. What fails is only logged: by now the
    run has ended, and what came of it stands. `judged` as in `fill`."""
    registry = CollectorRegistry()
    fill(TrainerMetrics(registry), outcome, memory, judged)
    _write(settings.train.metrics_file or settings.training_dir / "metrics.prom", registry)
    if gateway := settings.train.pushgateway:
        try:
            push_to_gateway(gateway, job=JOB, registry=registry)
        except (OSError, HTTPException) as error:
            log.warning("metrics were not pushed to %s: %s", gateway, error)


def _write(path: Path, registry: CollectorRegistry) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), registry)
    except OSError as error:
        log.warning("metrics were not written to %s: %s", path, error)


def fill(
    metrics: TrainerMetrics, outcome: RunOutcome, memory: RunMemory, judged: Verdict | None
) -> None:
    """Set every metric that the outcome knows; others are absent, not 0.

    `judged`: the last verdict of the gate, of whichever run; it is told until there is a newer one.
    """
    metrics.last_success.set(memory.last_success_ms / 1000)
    metrics.last_run.set(memory.last_run_ms / 1000)
    metrics.seconds.set(outcome.seconds)
    if outcome.new_events is None:
        metrics.leave_out(metrics.new_events)
    else:
        metrics.new_events.set(outcome.new_events)
    for ending in get_args(Ending):
        metrics.outcome.labels(outcome=ending).set(ending == outcome.ending)
    for stage in outcome.stages:
        metrics.stage_seconds.labels(stage=stage.name).set(stage.seconds)
        metrics.steps.labels(stage=stage.name).set(stage.steps)
        if stage.loss is not None:
            metrics.loss.labels(stage=stage.name).set(stage.loss)
    for when, reward in (("before", outcome.reward_before), ("after", outcome.reward_after)):
        if reward is not None:
            metrics.reward.labels(when=when).set(reward)
    for check in judged.checks if judged else ():
        metrics.gate.labels(rule=check.name).set(check.passed)
        metrics.gate_found.labels(rule=check.name).set(check.found)
