"""A run's models → one release folder with its manifest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from models.engines.model_files import base_model_hash
from models.ports import CanaryLine, Release, ReleaseStore
from models.profile.prompts import PROMPT_VERSION
from models.schemas import to_rfc3339
from models.settings import Settings
from models.training_settings import GateSettings
from trainer.data.corpus import Corpus
from trainer.data.replay_sampling import Seen
from trainer.evaluation.bootstrap import interval
from trainer.gate.decision import Check, Measured, PerUser, Verdict
from trainer.learning.policy import Policy
from trainer.learning.policy_answers import canary_lines, write_answers
from trainer.pipeline.record import RunRecord

ADAPTER: Final = "adapter"
EMBEDDER: Final = "embedder"
CANARY_LINES: Final = 4


def release_of(
    run: RunRecord,
    corpus: Corpus,
    settings: Settings,
    *,
    adapter: str | None,
    embedder: str,
    canary: Sequence[CanaryLine],
    metrics: Mapping[str, Any],
    begun_with: Seen,
) -> Release:
    """The manifest; `adapter` is ADAPTER, or None for the language model as it is.

    `embedder` is EMBEDDER for one of its own, else a name as in the settings. `begun_with`: what
    the models that training went on from had learned from.
    """
    return Release(
        id=run.release,
        base_model=settings.profile.model,
        adapter=adapter,
        embedder=embedder,
        prompt_version=PROMPT_VERSION,
        window_spec=settings.windows.model_dump(mode="json"),
        created_at=to_rfc3339(run.planned_ms),
        metrics=dict(metrics),
        data_range=_data_range(run, corpus, begun_with),
        base_model_hash=base_model_hash(settings),
        canary=tuple(canary),
        parent=run.parent.release,
        kind="trained",
    )


def _data_range(run: RunRecord, corpus: Corpus, begun_with: Seen) -> dict[str, Any]:
    """Old history that is imported moves the borders back, but not what was learned already.

    So `train_end` never falls behind that of the models gone on from. The offsets need no such
    care: a run reads the log from its beginning, so up to no less than the one before.
    """
    borders = corpus.data_range.borders
    return {
        **asdict(borders),
        "train_end": max(borders.train_end, begun_with.train_end),
        "next_offsets": {str(p): offset for p, offset in run.until["interactions"].items()},
    }


def publish(
    store: ReleaseStore, release: Release, adapter: Path | None, embedder: Path | None
) -> Release:
    """Write the folder. Raises ReleaseError; then nothing of it is there."""
    found = {ADAPTER: adapter, EMBEDDER: embedder}
    return store.publish(release, {name: path for name, path in found.items() if path})


def canary(policy: Policy, prompts: Sequence[str], kept: Path) -> tuple[CanaryLine, ...]:
    """What the adapter writes for a few of `prompts`, which are no user's (`canary_prompts`).

    `policy`: loaded from its folder alone.
    """
    chosen = [prompt for prompt in prompts if policy.fits(prompt)][:CANARY_LINES]
    texts = [answer.text for answer in write_answers(policy, chosen, kept)]
    said = [(prompt, text) for prompt, text in zip(chosen, texts, strict=True) if text]
    return canary_lines(policy, said)


def metrics_of(measured: Measured, verdict: Verdict, settings: GateSettings) -> dict[str, Any]:
    """What the manifest keeps of the gate's measurements, with intervals, and of what it said."""
    return {
        "gate": {
            "passed": verdict.passed,
            "reasons": list(verdict.reasons),
            "against": [verdict.serving, verdict.anchor],
            "checks": [
                {**asdict(check), "found": _finite(check.found)} for check in verdict.checks
            ],
        },
        "users": len(measured.ranking),
        "metric": settings.metric,
        "ranking": _interval(measured.ranking, settings),
        "profile_only": _interval(measured.profile_only, settings),
        "shuffled": _interval(measured.shuffled, settings),
        "grounding": _interval(measured.grounding, settings),
        "tokens": measured.tokens,
        "watch": asdict(measured.watch),
    }


def _finite(found: float) -> float | None:
    """None for the bound of no users: JSON has no infinity."""
    return found if math.isfinite(found) else None


def _interval(values: PerUser, settings: GateSettings) -> dict[str, float] | None:
    """Mean over users with its 95 % bootstrap interval; None without users."""
    if not len(values):
        return None
    return interval(values, resamples=settings.resamples, seed=settings.seed)._asdict()


def verdict_of(release: Release) -> Verdict:
    """What the gate said of a release that `metrics_of` has written of."""
    told = release.metrics["gate"]
    serving, anchor = told["against"]
    checks = tuple(
        Check(**{**check, "found": -math.inf if check["found"] is None else check["found"]})
        for check in told["checks"]
    )
    return Verdict(release.id, serving, anchor, release.metrics["users"], checks)


def last_verdict(store: ReleaseStore, names: Iterable[str]) -> Verdict | None:
    """Of the newest of these releases that is there and was judged; None if there is none."""
    there = set(store.ids())
    for name in sorted(names, reverse=True):
        if name in there and is_judged(release := store.get(name)):
            return verdict_of(release)
    return None


def is_judged(release: Release) -> bool:
    """Whether `metrics_of` has written of it; others may have a gate of their own."""
    return release.kind == "trained" and "checks" in release.metrics.get("gate", {})
