"""One training run: from the event log to a release and the gate's verdict.

Every stage keeps its own checkpoint in the run's folder, and the plan pins the offsets that are
read. So a run that was killed, at whatever point, goes on with the same losses when the command
is given again.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import PalateError, TrainingError
from models.identity import digest
from models.model_files import ModelSource
from models.ports import Release, ReleaseStore
from models.releases import adapter_folder, embedder_folder
from models.settings import Settings
from streams.event_log import SegmentLog
from trainer import job_metrics, plan
from trainer.choosing import chosen, trained_until
from trainer.contenders import Gauge, OpenEmbedder
from trainer.corpus import Corpus
from trainer.gate import Measured, Verdict, judge
from trainer.learning.policy import Policy
from trainer.learning.stages import Learned, Models, Stages
from trainer.log_source import logged_until
from trainer.outcome import Memory, Outcome, load_memory, save_memory
from trainer.releasing import EMBEDDER, canary, metrics_of, publish, release_of
from trainer.schedule import alone
from trainer.sessions import Session
from trainer.vectors import forget_unused

KEPT_RUNS: Final = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run is given by the command: the adapters of its ports."""

    releases: ReleaseStore
    model: ModelSource  # the base language model
    embedder: ModelSource  # the embedder that the settings name
    open_embedder: OpenEmbedder
    advance: Callable[[str, int, int], None]  # stage, done, of


def run(settings: Settings, tools: Tools, serving: str) -> Outcome:
    """Train once beside the `serving` release; what is released is not announced here.

    Raises TrainingError if another training runs. Whatever else goes wrong is an outcome too,
    after it is remembered and told to Prometheus.
    """
    folder = settings.training_dir
    with alone(folder):
        memory = load_memory(folder)
        try:
            outcome = _attempt(settings, tools, tools.releases.get(serving), memory)
        except BaseException as error:
            _remember(settings, memory, Outcome("failed", _said(error)), serving)
            raise
        plan.done(folder)
        _remember(settings, memory, outcome, serving)
        return outcome


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, PalateError) else repr(error)


def _remember(settings: Settings, memory: Memory, outcome: Outcome, serving: str) -> None:
    after = memory.after(outcome, time.time_ns() // 1_000_000, serving)
    save_memory(settings.training_dir, after)
    job_metrics.publish(settings, outcome, after)


def _attempt(settings: Settings, tools: Tools, serving: Release, memory: Memory) -> Outcome:
    events = SegmentLog(settings.log_dir)
    until = logged_until(events)
    new = _new_events(until, serving)
    if new < settings.train.sessions.min_new_events:
        return Outcome(
            "skipped",
            f"{new} events since the data of {serving.id}; fewer than "
            f"train.sessions.min_new_events ({settings.train.sessions.min_new_events})",
            new_events=new,
        )
    now = time.time_ns() // 1_000_000
    planned = plan.plan_for(settings.training_dir, serving.id, until, now)
    corpus = Corpus.from_log(events, settings, until=planned.until)
    sessions = chosen(corpus.sessions.train, trained_until(serving), settings.train.sessions)
    if not sessions:
        return Outcome("skipped", f"no session is newer than {serving.id}", new_events=new)
    return _Run(settings, tools, serving, memory, planned, corpus).outcome(sessions, new)


def _new_events(until: dict[int, int], serving: Release) -> int:
    before = serving.data_range.get("next_offsets", {})
    return sum(max(0, offset - before.get(str(p), 0)) for p, offset in until.items())


class _Run:
    """A run under way."""

    def __init__(
        self,
        settings: Settings,
        tools: Tools,
        serving: Release,
        memory: Memory,
        planned: plan.Plan,
        corpus: Corpus,
    ) -> None:
        self._settings, self._tools, self._serving = settings, tools, serving
        self._memory, self._plan, self._corpus = memory, planned, corpus
        self._started = time.time()
        # Other settings or another catalogue make it another run, in a folder of its own.
        key = digest(
            planned.release,
            settings.train.model_dump(mode="json", exclude={"rlso": {"vllm_url"}}),
            corpus.embedding_texts(),
        )
        self._folder = settings.training_dir / "runs" / f"{planned.release}-{key[:8]}"
        self._vectors = settings.training_dir / "vectors"
        self._gauge = Gauge(
            corpus,
            settings,
            tools.model,
            tools.embedder,
            tools.open_embedder,
            self._folder / "gate",
            self._vectors,
        )

    def outcome(self, sessions: Sequence[Session], new_events: int) -> Outcome:
        """Learn, release, judge."""
        self._clear_old_runs()
        learned = self._learn(sessions)
        release, verdict = self._released(learned.models)
        forget_unused(self._vectors, self._started)
        return Outcome(
            ending="passed" if verdict.passed else "refused",
            said="; ".join(verdict.reasons) or "every rule of the gate is kept",
            release=release.id,
            new_events=new_events,
            stages=learned.stages,
            reward_before=learned.reward_before,
            reward_after=learned.reward_after,
            verdict=verdict,
        )

    def _learn(self, sessions: Sequence[Session]) -> Learned:
        store, tools = self._tools.releases, self._tools
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
        start = Models(adapter_folder(store, self._serving), embedder_folder(store, self._serving))
        return stages.learn(start)

    def _released(self, models: Models) -> tuple[Release, Verdict]:
        """Measure, then write what was measured into the manifest: a release says what it is."""
        verdict, measured = self._judged(models)
        adapter = self._adapter_of(models)
        policy = Policy.load(self._tools.model, self._settings.train.policy, adapter=adapter)
        prompts = [one.prompt for one in self._gauge.asked]
        release = release_of(
            self._plan,
            self._corpus,
            self._settings,
            embedder=EMBEDDER if models.embedder else self._settings.embedder.model,
            canary=canary(policy, prompts, self._folder / "canary.jsonl"),
            metrics=metrics_of(measured, verdict),
        )
        return publish(self._tools.releases, release, adapter, models.embedder), verdict

    def _adapter_of(self, models: Models) -> Path:
        if models.adapter is None:
            raise TrainingError(
                f"{self._serving.id} has no adapter and nothing was trained; raise "
                "train.warm_start.steps or train.rlso.rounds"
            )
        return models.adapter

    def _judged(self, models: Models) -> tuple[Verdict, Measured]:
        """The candidate against the serving release and the anchor, on the same users."""
        store, gauge = self._tools.releases, self._gauge
        candidate = gauge.measure_files(self._plan.release, models.adapter, models.embedder)
        serving = gauge.measure(self._serving, store)
        anchor_id = self._memory.anchor or self._serving.id
        anchor = (
            serving if anchor_id == self._serving.id else gauge.measure(store.get(anchor_id), store)
        )
        return judge(candidate, serving, anchor, self._settings.train.gate), candidate

    def _clear_old_runs(self) -> None:
        """Keep the newest runs' folders: logs and checkpoints to look at."""
        others = sorted(
            (path for path in self._folder.parent.glob("r-*") if path != self._folder),
            key=lambda path: path.name,
        )
        for path in others[: -(KEPT_RUNS - 1)]:
            shutil.rmtree(path)
