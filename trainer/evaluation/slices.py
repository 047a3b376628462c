"""Parts of the test that are looked at apart: by history length, by what is cold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.training_settings import EvaluationSettings
from streams.windows import DAY_MS
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.systems import System

Mask = NDArray[np.bool_]  # [sessions]
LENGTHS: Final = ((1, 5), (5, 10), (10, 20), (20, 50), (50, None))


# How a system fares when what it knows of a user has grown old.
#
# A profile is written now and then and used until the next one. So each session is ranked by what
# was known at an earlier session of the same user, and the metric is looked at by the time between.

AGES: Final = ((0, 1), (1, 30), (30, 90), (90, 180), (180, None))  # days


@dataclass(frozen=True, slots=True)
class ByAge:
    """A metric of each system by the age of what it knew."""

    metric: str
    sessions: Mapping[str, int]  # age → how many were ranked at it
    curves: Mapping[str, tuple[Interval, ...]]  # system → one interval per age


def by_age(
    corpus: Corpus,
    systems: Sequence[System],
    sessions: Sequence[Session],
    settings: EvaluationSettings,
    metric: str,
) -> ByAge:
    """Rank `sessions` by what was known at each earlier session of their users, and at their own.

    Raises TrainingError when no session can be ranked.
    """
    earlier = [*corpus.sessions.train, *corpus.sessions.validation, *corpus.sessions.test]
    aged, ages = aged_sessions(sessions, earlier)
    # What the user had at the later moment is not known here, so nothing is left out of ranking.
    open_settings = settings.model_copy(update={"mask_seen": False})
    report = evaluate(corpus, systems, aged, open_settings)
    masks = {label: mask for label, mask in _masks(ages).items() if mask.any()}
    return ByAge(
        metric,
        {label: int(mask.sum()) for label, mask in masks.items()},
        {
            system.name: tuple(
                report.interval(system.name, metric, mask) for mask in masks.values()
            )
            for system in systems
        },
    )


def aged_sessions(
    sessions: Iterable[Session], earlier: Iterable[Session]
) -> tuple[list[Session], NDArray[np.float64]]:
    """(sessions with the targets of `sessions` and a history of then or before, ages in days).

    Every state of `earlier` not after a session counts, the session's own state among them.
    """
    known = sorted({session.key: session for session in earlier}.items())
    by_user = {user: [s for _, s in group] for user, group in groupby(known, lambda x: x[0][0])}
    found: list[Session] = []
    ages: list[float] = []
    for session in sessions:
        states = [s for s in by_user.get(session.user_id, ()) if s.as_of < session.as_of]
        for state in (*states, session):
            found.append(
                replace(
                    state,
                    targets=session.targets,
                    target_time=session.target_time,
                    last_target_time=session.last_target_time,
                )
            )
            ages.append((session.as_of - state.as_of) / DAY_MS)
    return found, np.array(ages, np.float64)


def _masks(ages: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    return {
        f"{low}+ days" if high is None else f"{low}–{high} days": (ages >= low)
        & (ages < (np.inf if high is None else high))
        for low, high in AGES
    }


def slices_of(corpus: Corpus, sessions: Sequence[Session]) -> dict[str, dict[str, Mask]]:
    """Dimension → label → which sessions; empty parts are left out.

    A user is cold without a training event, an item without a training event of anybody.
    """
    cold_user = _cold_users(corpus, sessions)
    cold_item = _cold_targets(corpus, sessions)
    found = {
        "history": by_length(history_lengths(corpus, sessions)),
        "user": {"cold": cold_user, "warm": ~cold_user},
        "targets": {"with a cold item": cold_item, "all warm": ~cold_item},
    }
    return {name: _filled(labelled) for name, labelled in found.items()}


def _filled(labelled: Mapping[str, Mask]) -> dict[str, Mask]:
    return {label: mask for label, mask in labelled.items() if mask.any()}


def history_lengths(corpus: Corpus, sessions: Sequence[Session]) -> NDArray[np.int64]:
    """[sessions] positives known at the session's moment."""
    return np.array([len(session.liked(corpus.spec)) for session in sessions], np.int64)


def by_length(lengths: NDArray[np.int64]) -> dict[str, Mask]:
    """Label → which sessions have such a history."""
    return {
        f"{low}+" if high is None else f"{low}–{high - 1}": (lengths >= low)
        & (lengths < (high or np.iinfo(np.int64).max))
        for low, high in LENGTHS
    }


def _cold_users(corpus: Corpus, sessions: Sequence[Session]) -> Mask:
    warm = set(corpus.training_events.user_ids)
    return np.array([session.user_id not in warm for session in sessions], bool)


def _cold_targets(corpus: Corpus, sessions: Sequence[Session]) -> Mask:
    warm = warm_items(corpus)
    return np.array(
        [any(item not in warm for item in session.targets) for session in sessions], bool
    )


def warm_items(corpus: Corpus) -> frozenset[str]:
    """Items with a training event."""
    ids = corpus.item_ids
    return frozenset(ids[row] for row in np.unique(corpus.training_events.items))


def cold_counts(corpus: Corpus, sessions: Sequence[Session]) -> dict[str, int]:
    """How many users and target items of these sessions training has never seen."""
    warm = warm_items(corpus)
    users = {session.user_id for session in sessions}
    targets = {item for session in sessions for item in session.targets}
    return {
        "users": len(users),
        "cold_users": len(users - set(corpus.training_events.user_ids)),
        "target_items": len(targets),
        "cold_target_items": len(targets - warm),
    }
