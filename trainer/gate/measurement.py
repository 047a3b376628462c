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
from models.profile.assembly import Composed, CountTokens
from models.ranking.catalogue import Catalogue
from models.ranking.queries import Query
from models.ranking.scoring import rank_batch
from models.schemas import RecommendedItem
from models.settings import Settings
from streams.queries import query_of
from trainer.data.cases import Case, Prompted
from trainer.data.sessions import Session
from trainer.evaluation.context import Context
from trainer.evaluation.metrics import Ranks, masked, ranks_of, session_metrics, tie_keys
from trainer.gate.decision import Measured, PerUser
from trainer.reward.reward_hacking import watch
from trainer.reward.rewarder import Answer, Compose, checked, embedded, written
from trainer.reward.rewards import grounding

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
    context, longest = contender.context, settings.profile.max_tokens
    answers = contender.write([one.prompt for one in asked])
    served = _profiles(asked, answers, checked(count_tokens, longest))
    own_words = _profiles(asked, answers, checked(count_tokens, longest, stand_ins=False))
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
    """As the tracker ranks: profile beside recent items, co-occurrence and popularity, diversity,
    and without what the user had or disliked and what is not to be had.

    What stands on no list, because something like it does, counts as missed.
    """
    gate, ks = settings.train.gate, settings.train.evaluation.ks
    ranking = settings.ranking.model_copy(update={"top_k": max(settings.ranking.top_k, *ks)})
    catalogue = _to_be_had(context.catalogue, cases)
    queries = [
        _query(case.session, context, vector) for case, vector in zip(cases, vectors, strict=True)
    ]
    lists = [
        found
        for start in range(0, len(queries), BATCH)
        for found in rank_batch(
            catalogue, context.neighbours, queries[start : start + BATCH], ranking
        )
    ]
    ranks = [_places(case, found, catalogue) for case, found in zip(cases, lists, strict=True)]
    return session_metrics(ranks, ks)[gate.metric]


def _to_be_had(catalogue: Catalogue, cases: Sequence[Case]) -> Catalogue:
    """What one of the gate's users chose could be had then, even if it no longer can: without
    these items nothing could be told by the users who chose them."""
    available = catalogue.available.copy()
    for case in cases:
        available[case.target.next] = True
    return replace(catalogue, available=available)


def _query(session: Session, context: Context, vector: Vectors) -> Query:
    asked = query_of(session.user_id, session.history, context.corpus.spec)
    return replace(asked, profile=vector)


def _places(case: Case, found: Sequence[RecommendedItem], catalogue: Catalogue) -> Ranks:
    """The rank of each target; behind the whole catalogue for one that is not on the list."""
    place_of = {catalogue.row_of[item.item_id]: place for place, item in enumerate(found, start=1)}
    missed = len(catalogue) + 1
    return np.array([place_of.get(int(row), missed) for row in case.target.next], np.int64)


def _profile_only(
    context: Context, cases: Sequence[Case], vectors: Vectors, settings: Settings
) -> PerUser:
    """[cases] the gate's metric of all items by their cosine to the vectors alone."""
    gate, items, ranks = settings.train.gate, context.item_vectors, []
    ties = tie_keys(len(items), gate.seed)
    for start in range(0, len(cases), BATCH):
        part = cases[start : start + BATCH]
        scores = vectors[start : start + BATCH] @ items.T
        ranked = masked(scores, [case.target.seen for case in part])
        ranks += ranks_of(ranked, [case.target.next for case in part], ties)
    return session_metrics(ranks, settings.train.evaluation.ks)[gate.metric]
