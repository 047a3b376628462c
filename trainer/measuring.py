"""What the gate compares: releases write profiles for the same users and rank with them.

The ranking that is compared is the served one: profiles as served, with extractive sentences in the
place of what the model got wrong. What the model's own words are worth is measured without them:
they hold whole titles and rank better than most of what a model writes, so that one which writes
nothing would pass the control best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from models.ports import Vectors
from models.profiles import Composed, CountTokens
from models.queries import Query
from models.ranking import left_out, score_batch
from models.settings import Settings
from streams.queries import query_of
from trainer.cases import Case, Prompted
from trainer.evaluation.context import Context
from trainer.evaluation.metrics import Rows, masked, ranks_of, session_metrics, tie_keys
from trainer.gate import Measured, PerUser
from trainer.hacking import watch
from trainer.judging import Answer, Compose, checked, embedded, written
from trainer.rewards import grounding
from trainer.sessions import Session

Write = Callable[[Sequence[str]], list[Answer]]  # prompts → greedy answers
BATCH: Final = 256  # users ranked together


@dataclass(frozen=True, slots=True)
class Contender:
    """A release, ready to write and to rank: its model, its embedder and items under it."""

    release: str
    write: Write
    context: Context


def measure(
    contender: Contender,
    cases: Sequence[Case],
    asked: Sequence[Prompted],
    count_tokens: CountTokens,
    settings: Settings,
) -> Measured:
    """Let a release write a profile for each case (one per user) and rank with it."""
    context = contender.context
    answers = contender.write([one.prompt for one in asked])
    served = _profiles(asked, answers, checked(count_tokens))
    own_words = _profiles(asked, answers, checked(count_tokens, stand_ins=False))
    own = _vectors(context, own_words)
    return Measured(
        release=contender.release,
        ranking=_served(context, cases, _vectors(context, served), settings),
        profile_only=_profile_only(context, cases, own, settings),
        shuffled=_profile_only(context, cases, np.roll(own, 1, axis=0), settings),
        grounding=np.array([grounding(profile.counts) for profile in served], np.float64),
        tokens=float(np.mean([answer.tokens for answer in answers])) if answers else 0.0,
        watch=watch([written(one, a) for one, a in zip(asked, answers, strict=True)]),
    )


def _profiles(
    asked: Sequence[Prompted], answers: Sequence[Answer], compose: Compose
) -> list[Composed]:
    return [compose(one.request, answer.text) for one, answer in zip(asked, answers, strict=True)]


def _vectors(context: Context, profiles: Sequence[Composed]) -> Vectors:
    texts = [profile.text for profile in profiles]
    return embedded(texts, context.embedder, context.item_vectors.shape[1])


def _served(
    context: Context, cases: Sequence[Case], vectors: Vectors, settings: Settings
) -> PerUser:
    """As the tracker ranks: profile beside recent items, co-occurrence and popularity, without
    what the user had or disliked."""

    queries = [
        _query(case.session, context, vector) for case, vector in zip(cases, vectors, strict=True)
    ]

    def scores(start: int, stop: int) -> np.ndarray:
        asked = queries[start:stop]
        return score_batch(context.catalogue, context.neighbours, asked, settings.ranking)

    unlisted = [left_out(context.catalogue, query, settings.ranking) for query in queries]
    return _metric(scores, cases, unlisted, settings)


def _query(session: Session, context: Context, vector: Vectors) -> Query:
    asked = query_of(session.user_id, session.history, context.corpus.spec)
    return replace(asked, profile=vector)


def _profile_only(
    context: Context, cases: Sequence[Case], vectors: Vectors, settings: Settings
) -> PerUser:
    def scores(start: int, stop: int) -> np.ndarray:
        found: np.ndarray = vectors[start:stop] @ context.item_vectors.T
        return found

    return _metric(scores, cases, [case.target.seen for case in cases], settings)


def _metric(
    scores: Callable[[int, int], np.ndarray],
    cases: Sequence[Case],
    unlisted: Sequence[Rows],
    settings: Settings,
) -> PerUser:
    """[cases] the gate's metric. `scores(start, stop)` of these cases; `unlisted` per case the
    items that are not ranked: one of them that was chosen next all the same counts as missed."""
    gate, found = settings.train.gate, []
    for start in range(0, len(cases), BATCH):
        stop = min(start + BATCH, len(cases))
        ranked = masked(scores(start, stop), unlisted[start:stop])
        ties = tie_keys(ranked.shape[1], gate.seed)
        ranks = ranks_of(ranked, [case.target.next for case in cases[start:stop]], ties)
        found.append(session_metrics(ranks, settings.train.evaluation.ks)[gate.metric])
    return np.concatenate(found) if found else np.empty(0)
