"""A run under way: learn, judge, write the release."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.engines.model_files import ModelSource
from models.identity import digest
from models.ports import CanaryLine, InForce, Release, ReleaseStore
from models.settings import Settings
from trainer.data.canary_prompts import canary_prompts
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.data.vector_cache import forget_unused
from trainer.gate.decision import Measured, Verdict, Window, judge
from trainer.gate.release_evaluator import EvaluationProgress, OpenEmbedder, ReleaseEvaluator
from trainer.learning.policy import Policy, policy_options
from trainer.learning.stages import Models, StageResults, Stages
from trainer.pipeline.outcome import RunOutcome
from trainer.pipeline.parent import ParentModels
from trainer.pipeline.record import RunRecord, RunRecords
from trainer.pipeline.release_writer import (
    ADAPTER,
    EMBEDDER,
    canary,
    metrics_of,
    publish,
    release_of,
    verdict_of,
)


@dataclass(frozen=True, slots=True)
class TrainingTools:
    """What a run is given by the command: the adapters of its ports."""

    releases: ReleaseStore
    model: ModelSource  # the base language model
    embedder: ModelSource  # the embedder that the settings name
    open_embedder: OpenEmbedder
    advance: EvaluationProgress
    # Lets a release serve in the place of the one that is in force, or raises ReleaseError; None:
    # nothing is promoted.
    promote: Callable[[Release, InForce], None] | None


def outcome_of(release: Release) -> RunOutcome:
    """Of a run that made `release`: what the gate said of it."""
    verdict = verdict_of(release)
    return RunOutcome(
        ending="passed" if verdict.passed else "refused",
        said="; ".join(verdict.reasons) or "every rule of the gate is kept",
        release=release.id,
        verdict=verdict,
    )


class TrainingRun:
    """A run under way, in a folder of its own."""

    def __init__(
        self,
        settings: Settings,
        tools: TrainingTools,
        start: ParentModels,
        anchor: ParentModels,
        run: RunRecord,
        corpus: Corpus,
    ) -> None:
        self._settings, self._tools, self._start = settings, tools, start
        self._anchor, self._run, self._corpus = anchor, run, corpus
        self._started = time.time()
        # With other settings or models it learns anew, in another folder.
        key = digest(run.learning, corpus.embedding_texts())[:8]
        records = RunRecords(settings.training_dir)
        self._folder = records.work(run, key)
        self.set_aside = records.set_aside(run, key)
        self._vectors = settings.training_dir / "vectors"
        self._evaluator = ReleaseEvaluator(
            corpus,
            settings,
            tools.model,
            tools.embedder,
            tools.open_embedder,
            self._folder / "gate",
            self._vectors,
            tools.advance,
        )

    def outcome(self, sessions: Sequence[Session]) -> RunOutcome:
        """Learn, judge, release."""
        learned = self._learn(sessions)
        release = self._released(learned.models)
        forget_unused(self._vectors, self._started)
        return replace(
            outcome_of(release),
            stages=learned.stages,
            reward_before=learned.reward_before,
            reward_after=learned.reward_after,
        )

    def _learn(self, sessions: Sequence[Session]) -> StageResults:
        tools = self._tools
        stages = Stages(
            self._corpus,
            sessions,
            self._settings,
            tools.model,
            tools.embedder,
            tools.open_embedder,
            self._folder,
            self._vectors,
            tools.advance,
        )
        return stages.learn(self._start.models)

    def _released(self, models: Models) -> Release:
        """Measure, then write what was measured into the manifest: a release says what it is."""
        verdict, measured = self._judged(models)
        release = release_of(
            self._run,
            self._corpus,
            self._settings,
            adapter=ADAPTER if models.adapter else None,
            embedder=EMBEDDER if models.embedder else self._settings.embedder.model,
            canary=self._canary(models.adapter),
            metrics=metrics_of(measured, verdict, self._settings.train.gate),
            begun_with=self._start.seen,
        )
        return publish(self._tools.releases, release, models.adapter, models.embedder)

    def _canary(self, adapter: Path | None) -> tuple[CanaryLine, ...]:
        """Without an adapter there is nothing to show."""
        if adapter is None:
            return ()
        policy = Policy.load(self._tools.model, policy_options(self._settings), adapter=adapter)
        prompts = canary_prompts(self._corpus, self._settings.train.gate.seed)
        return canary(policy, prompts, self._folder / "canary.jsonl")

    def _judged(self, models: Models) -> tuple[Verdict, Measured]:
        """The candidate against the serving release and the anchor, on the same users."""
        candidate = self._evaluator.measure(self._run.release, models.adapter, models.embedder)
        serving = self._measured(self._start)
        same = self._anchor.release.id == self._start.release.id
        anchor = serving if same else self._measured(self._anchor)
        window = Window(
            self._corpus.data_range.borders.validation_end,
            self._start.seen.train_end,
            self._anchor.seen.train_end,
        )
        return judge(candidate, serving, anchor, self._settings.train.gate, window), candidate

    def _measured(self, one: ParentModels) -> Measured:
        return self._evaluator.measure(one.release.id, one.models.adapter, one.models.embedder)
