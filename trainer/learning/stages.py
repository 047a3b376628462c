"""The learning stages of a run, in order: warm start, then CL and RLSO by turns (methods §8.10).

Each stage has a folder with its own checkpoint and goes on from it, so calling them again after
a kill costs what was left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from models.engines.model_files import ModelSource, files_hash
from models.errors import TrainingError
from models.ports import TextEmbedder, Vectors
from models.settings import Settings
from models.training_settings import TrainSettings
from trainer.data.corpus import Corpus, newest_of_each, sample_users
from trainer.data.replay_sampling import steps_for
from trainer.data.sessions import Session
from trainer.data.target_answers import WordWeights, examples, requests
from trainer.data.vector_cache import cached_vectors
from trainer.evaluation.evaluate import rankable
from trainer.gate.release_evaluator import OpenEmbedder, profiles_of
from trainer.learning.builders import ranking_validation
from trainer.learning.contrastive import train_embedder
from trainer.learning.pairs import pairs_of
from trainer.learning.policy import Policy, policy_options
from trainer.learning.policy_answers import answers_file
from trainer.learning.rlso import run_rlso
from trainer.learning.warm_start import train as warm_start
from trainer.pipeline.outcome import Stage

StageProgress = Callable[[str, int, int], None]  # stage, done, of


@dataclass(frozen=True, slots=True)
class Models:
    """What the stages hand on: folders, None where what the settings name is used."""

    adapter: Path | None
    embedder: Path | None


@dataclass(slots=True)
class StageResults:
    """What came of all stages."""

    models: Models
    stages: list[Stage] = field(default_factory=list)
    reward_before: float | None = None
    reward_after: float | None = None


def require_a_stage(train: TrainSettings, start: Models) -> None:
    """Raises TrainingError where every stage would be left out."""
    warm_start = train.warm_start.steps if start.adapter is None else 0
    if not (warm_start or train.contrastive.steps or train.rlso.rounds):
        raise TrainingError(
            "nothing would be trained: every stage is left out. Raise train.contrastive.steps, "
            "train.rlso.rounds or, where there is no adapter yet, train.warm_start.steps"
        )


class Stages:
    """Runs the stages on one corpus, from the serving release's models."""

    def __init__(
        self,
        corpus: Corpus,
        sessions: Sequence[Session],
        settings: Settings,
        model: ModelSource,
        embedder: ModelSource,
        open_embedder: OpenEmbedder,
        folder: Path,
        vectors: Path,
        advance: StageProgress,
    ) -> None:
        """`sessions` are trained on; `model` and `embedder` are what a release without its own
        uses; `vectors` caches the catalogue's."""
        self._corpus, self._sessions = corpus, sessions
        self._settings, self._train = settings, settings.train
        self._model, self._embedder, self._open = model, embedder, open_embedder
        self._folder, self._vectors, self._advance = folder, vectors, advance

    def learn(self, start: Models) -> StageResults:
        """All stages; a stage with 0 steps or rounds is left out."""
        learned = StageResults(start)
        if start.adapter is None and self._train.warm_start.steps:
            self._warm_start(learned)
        for number in range(1, self._train.rounds + 1):
            if self._train.contrastive.steps:
                self._contrastive(learned, number)
            if self._train.rlso.rounds:
                self._rlso(learned, number)
        return learned

    def _warm_start(self, learned: StageResults) -> None:
        corpus, folder = self._corpus, self._folder / "warm-start"
        started = time.monotonic()
        asked = requests(self._sessions, corpus.spec, corpus.text_of)
        found = examples(asked, WordWeights.of(map(corpus.text_of, corpus.item_ids)))
        wanted = self._train.warm_start
        steps = steps_for(len(found), wanted.batch, self._train.passes, wanted.steps)
        policy = self._policy(None, wanted.seed)
        result = warm_start(
            policy,
            found,
            wanted.model_copy(update={"steps": steps}),
            folder,
            on_step=lambda step, _: self._advance("warm-start", step, steps),
        )
        policy.save(folder / "adapter")
        learned.models = Models(folder / "adapter", learned.models.embedder)
        self._note(learned, "warm-start", started, result.steps, result.loss)

    def _contrastive(self, learned: StageResults, number: int) -> None:
        name, corpus = f"contrastive-{number}", self._corpus
        folder, started = self._folder / name, time.monotonic()
        wanted, mask_seen = self._train.contrastive, self._settings.ranking.exclude_seen
        told = sample_users(self._sessions, wanted.users, wanted.seed)
        held_out = sample_users(corpus.sessions.validation, wanted.validation_users, wanted.seed)
        judged = rankable(corpus, newest_of_each(held_out), mask_seen)
        adapter = learned.models.adapter
        profile = self._settings.profile
        profiles = profiles_of(
            self._policy(adapter),
            corpus,
            [*told, *judged],
            profile.max_tokens,
            answers_file(folder, self._model, adapter, profile.max_new_tokens),
            partial(self._advance, f"{name}-profiles"),
        )

        def text_of(session: Session) -> str:
            profile = profiles.get(session.key)
            return profile.text if profile else ""

        ids, item_texts = corpus.embedding_texts()
        pairs = pairs_of(corpus, told, text_of, mask_seen=mask_seen)
        steps = steps_for(len(pairs), wanted.batch, self._train.passes, wanted.steps)
        result = train_embedder(
            pairs,
            dict(zip(ids, item_texts, strict=True)),
            learned.models.embedder or self._embedder,
            wanted.model_copy(update={"steps": steps}),
            folder,
            validate=ranking_validation(
                corpus, text_of, self._settings, judged, mask_seen=mask_seen
            )
            if judged
            else None,
            on_step=lambda done, _: self._advance(name, done, steps),
        )
        if result.best_step:  # 0: the embedder it began with ranks best
            learned.models = Models(learned.models.adapter, result.embedder)
        self._note(learned, name, started, result.steps, result.losses[-1])

    def _rlso(self, learned: StageResults, number: int) -> None:
        name, wanted = f"rlso-{number}", self._train.rlso
        started, start = time.monotonic(), learned.models.adapter
        rounds = steps_for(len(self._sessions), wanted.prompts, self._train.passes, wanted.rounds)
        settings = self._train.model_copy(
            update={"rlso": wanted.model_copy(update={"rounds": rounds})}
        )
        policy = self._policy(start, wanted.seed, reference=start)
        source = learned.models.embedder or self._embedder
        embedder, identity = self._open(source), files_hash(source)
        result = run_rlso(
            self._corpus,
            policy,
            embedder,
            settings,
            self._folder / name,
            start=start,
            embedder_name=identity,
            mask_seen=self._settings.ranking.exclude_seen,
            max_tokens=self._settings.profile.max_tokens,
            items=self._items(embedder, identity),
            training=self._sessions,
            on_step=lambda done, _: self._advance(name, done, rounds),
        )
        learned.models = Models(result.adapter, learned.models.embedder)
        if result.validations:  # another round's decoder is another scale: the last phase counts
            learned.reward_before = result.validations[0].reward
            learned.reward_after = max(one.reward for one in result.validations)
        self._note(learned, name, started, result.steps, result.loss)

    def _policy(self, adapter: Path | None, seed: int = 0, reference: Path | None = None) -> Policy:
        options = policy_options(self._settings)
        return Policy.load(self._model, options, adapter=adapter, reference=reference, seed=seed)

    def _items(self, embedder: TextEmbedder, identity: str) -> Vectors:
        texts = self._corpus.embedding_texts()[1]
        return cached_vectors(texts, lambda: embedder, identity, self._vectors)

    @staticmethod
    def _note(
        learned: StageResults, name: str, started: float, steps: int, loss: float | None
    ) -> None:
        learned.stages.append(Stage(name, time.monotonic() - started, steps, loss))
