"""What the gate compares: releases write profiles for the same users and rank with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from models.ports import Vectors
from models.queries import Query
from models.ranking import left_out, score_batch
from models.settings import Settings
from streams.queries import query_of
from trainer.cases import Case, Prompted
from trainer.evaluation.context import Context
from trainer.evaluation.metrics import Rows, masked, ranks_of, session_metrics, tie_keys
from trainer.gate import Measured, PerUser
from trainer.hacking import watch
from trainer.judging import Answer, Compose, written
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
    compose: Compose,
    settings: Settings,
) -> Measured:
    """Let a release write a profile for each case (one per user) and rank with it."""
    answers = contender.write([one.prompt for one in asked])
    composed = [
        compose(one.request, answer.text) for one, answer in zip(asked, answers, strict=True)
    ]
    vectors = contender.context.embedder.embed([profile.text for profile in composed])
    other_users = np.roll(vectors, 1, axis=0)
    return Measured(
        release=contender.release,
        ranking=_served(contender.context, cases, vectors, settings),
        profile_only=_profile_only(contender.context, cases, vectors, settings),
        shuffled=_profile_only(contender.context, cases, other_users, settings),
        grounding=np.array([grounding(profile.counts) for profile in composed], np.float64),
        tokens=float(np.mean([answer.tokens for answer in answers])) if answers else 0.0,
        watch=watch([written(one, a) for one, a in zip(asked, answers, strict=True)]),
    )


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
