"""Releases made ready for the gate: each writes with its adapter and ranks by its embedder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from models.engines.model_files import ModelSource, files_hash
from models.engines.tokens import token_counter
from models.ports import TextEmbedder
from models.profile.assembly import Composed
from models.profile.prompts import render
from models.schemas import ProfileRequest
from models.settings import Settings
from trainer.data.cases import Case, Prompted, cases, prompted
from trainer.data.corpus import Corpus, newest_of_each, sample_users
from trainer.data.sessions import Session, SessionKey, request_of
from trainer.evaluation.context import Context
from trainer.gate.decision import Measured
from trainer.gate.measurement import Contender, Write, measure
from trainer.learning.policy import Policy, policy_options
from trainer.learning.policy_answers import answers_file, write_answers
from trainer.reward.rewarder import Answer, checked

EvaluationProgress = Callable[[str, int, int], None]  # stage, done, of
OpenEmbedder = Callable[[ModelSource], TextEmbedder]


class ReleaseEvaluator:
    """Measures releases on the same users of the window after training."""

    def __init__(
        self,
        corpus: Corpus,
        settings: Settings,
        base: ModelSource,
        embedder: ModelSource,
        open_embedder: OpenEmbedder,
        folder: Path,
        cache: Path,
        advance: EvaluationProgress = lambda _stage, _done, _of: None,
    ) -> None:
        """`base` and `embedder` are what releases without their own use.

        `folder` keeps the answers of a run that is cut short, `cache` vectors for all runs.
        """
        self._corpus, self._settings = corpus, settings
        self._base, self._embedder, self._open_embedder = base, embedder, open_embedder
        self._folder, self._cache, self._advance = folder, cache, advance
        self._count_tokens = token_counter(base)  # as a policy counts, without holding its model
        self.cases, self.asked = self._chosen()

    def _chosen(self) -> tuple[list[Case], list[Prompted]]:
        gate, corpus = self._settings.train.gate, self._corpus
        sessions = newest_of_each(sample_users(corpus.sessions.test, gate.users, gate.seed))
        found = cases(
            sessions, corpus.row_of, corpus.spec, mask_seen=self._settings.ranking.exclude_seen
        )
        asked = [(case, prompted(case, corpus.spec, corpus.text_of)) for case in found]
        longest = self._settings.train.policy.max_prompt_tokens
        readable = [(case, one) for case, one in asked if self._count_tokens(one.prompt) <= longest]
        return [case for case, _ in readable], [one for _, one in readable]

    def measure(self, name: str, adapter: Path | None, embedder: Path | None) -> Measured:
        """A release by its folders; None: what the settings name."""
        policy = Policy.load(self._base, policy_options(self._settings), adapter=adapter)
        source = embedder or self._embedder
        context = Context(
            self._corpus,
            self._settings,
            lambda: self._open_embedder(source),
            files_hash(source),
            self._cache,
        )
        contender = Contender(name, self._writer(name, policy, adapter), context)
        return measure(contender, self.cases, self.asked, self._count_tokens, self._settings)

    def _writer(self, name: str, policy: Policy, adapter: Path | None) -> Write:
        longest = self._settings.profile.max_new_tokens
        kept = answers_file(self._folder, self._base, adapter, longest)

        def write(asked: Sequence[str]) -> list[Answer]:
            stage, of = f"gate: {name}", len(asked)
            return write_answers(policy, asked, kept, lambda done: self._advance(stage, done, of))

        return write


def profiles_of(
    policy: Policy,
    corpus: Corpus,
    sessions: Sequence[Session],
    max_tokens: int,
    kept: Path,
    advance: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[SessionKey, Composed]:
    """Profiles as the live system would write them; sessions of too long prompts are absent.

    `max_tokens`: of a profile. `kept`: answers made before a kill, of this policy alone. `advance`
    is told how many answers there are, and of how many.
    """

    def request(session: Session) -> ProfileRequest:  # a megabyte each: never all at once
        return request_of(session, corpus.spec, corpus.text_of)

    distinct = {one.key: one for one in sessions}.values()
    asked = [(one, render(request(one))) for one in distinct]
    readable = [(one, prompt) for one, prompt in asked if policy.fits(prompt)]
    prompts = [prompt for _, prompt in readable]
    answers = write_answers(policy, prompts, kept, lambda done: advance(done, len(prompts)))
    compose = checked(policy.count_tokens, max_tokens)
    return {
        one.key: compose(request(one), answer.text)
        for (one, _), answer in zip(readable, answers, strict=True)
    }
