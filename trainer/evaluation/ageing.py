"""How a system fares when what it knows of a user has grown old.

A profile is written now and then and used until the next one. So each session is ranked by what
was known at an earlier session of the same user, and the metric is looked at by the time between.
"""

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
