"""Rank the full catalogue for every session by every system, and count."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.errors import TrainingError
from models.training_settings import EvaluationSettings
from trainer.baselines.counted import users_per_item
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.data.splits import SplitProtocol
from trainer.evaluation.bootstrap import Interval, Values, interval, per_user
from trainer.evaluation.metrics import (
    Columns,
    Exposure,
    Ranks,
    exposure,
    masked,
    ranks_of,
    session_metrics,
    tie_keys,
    top_rows,
)
from trainer.evaluation.slices import Mask, cold_counts, slices_of
from trainer.evaluation.systems import System

BATCH: Final = 256  # sessions scored together; 256 × 10⁵ items are 100 MB

logger = logging.getLogger(__name__)
SessionsDone = Callable[[int], None]  # told how many sessions a system has just ranked


@dataclass(frozen=True, slots=True)
class SystemResult:
    """What one system did."""

    name: str
    metrics: Mapping[str, NDArray[np.float64]]  # name → [sessions]
    exposure: Exposure  # of its lists of the largest k
    seconds: float


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """All systems on the same sessions, so that differences are paired."""

    data: str
    protocol: str
    masked: bool  # items had before cannot be ranked
    skipped: int  # sessions without a target that can be ranked
    items: int
    users: tuple[str, ...]  # [sessions]
    repeated: float  # share of targets that the user had had before
    counts: Mapping[str, int]  # of the corpus, and what is cold
    slices: Mapping[str, Mapping[str, Mask]]  # dimension → label → [sessions]
    systems: tuple[SystemResult, ...]
    settings: EvaluationSettings

    def result(self, system: str) -> SystemResult:
        """One system's. Raises TrainingError for a system that was not measured."""
        for found in self.systems:
            if found.name == system:
                return found
        raise TrainingError(f"{system} was not measured")

    def values(self, system: str, metric: str, mask: Mask | None = None) -> Values:
        """[users] mean of each user's sessions, in order of user id."""
        values = self.result(system).metrics[metric]
        chosen = np.ones(len(values), bool) if mask is None else mask
        users = [user for user, inside in zip(self.users, chosen, strict=True) if inside]
        return per_user(users, values[chosen])

    def interval(self, system: str, metric: str, mask: Mask | None = None) -> Interval:
        """Mean over users with its interval."""
        return self._interval(self.values(system, metric, mask))

    def difference(self, system: str, other: str, metric: str) -> Interval:
        """`system` minus `other`, paired by user."""
        return self._interval(self.values(system, metric) - self.values(other, metric))

    def _interval(self, values: Values) -> Interval:
        return interval(values, resamples=self.settings.resamples, seed=self.settings.seed)


def evaluate(
    corpus: Corpus,
    systems: Sequence[System],
    sessions: Sequence[Session],
    settings: EvaluationSettings,
    *,
    advance: SessionsDone = lambda _: None,
) -> EvaluationReport:
    """Rank all items for all sessions.

    With `mask_seen`, items that the user had before are left out of ranking and of the targets.
    Raises TrainingError when no session is left to rank.
    """
    mask_seen = masks_seen(settings, corpus.protocol)
    ranked = rankable(corpus, sessions, mask_seen)
    if not ranked:
        raise TrainingError(f"{corpus.name}: there is no session to evaluate on")
    return EvaluationReport(
        data=corpus.name,
        protocol=corpus.protocol,
        masked=mask_seen,
        skipped=len(sessions) - len(ranked),
        items=len(corpus.item_ids),
        users=tuple(session.user_id for session in ranked),
        repeated=_repeated(corpus, sessions),
        counts={**corpus.counts, **cold_counts(corpus, ranked)},
        slices=slices_of(corpus, ranked),
        systems=tuple(
            _measure(system, corpus, ranked, settings, mask_seen, advance) for system in systems
        ),
        settings=settings,
    )


def masks_seen(settings: EvaluationSettings, protocol: SplitProtocol) -> bool:
    """Whether items had before are left out: as set, else as papers do in leave-one-out."""
    return protocol == "leave-one-out" if settings.mask_seen is None else settings.mask_seen


def rankable(corpus: Corpus, sessions: Sequence[Session], mask_seen: bool) -> tuple[Session, ...]:
    """Sessions with a target that can be ranked, and of their targets those."""
    return tuple(_rankable(corpus, sessions, mask_seen))


def _rankable(corpus: Corpus, sessions: Sequence[Session], mask_seen: bool) -> Iterator[Session]:
    for session in sessions:
        had = frozenset(session.liked(corpus.spec)) if mask_seen else frozenset()
        targets = tuple(t for t in session.targets if t in corpus.row_of and t not in had)
        if targets:
            yield replace(session, targets=targets)


def _repeated(corpus: Corpus, sessions: Sequence[Session]) -> float:
    had = sum(
        target in liked
        for session in sessions
        for liked in (frozenset(session.liked(corpus.spec)),)
        for target in session.targets
    )
    return had / max(1, sum(len(session.targets) for session in sessions))


def _measure(
    system: System,
    corpus: Corpus,
    sessions: Sequence[Session],
    settings: EvaluationSettings,
    mask_seen: bool,
    advance: SessionsDone,
) -> SystemResult:
    started = time.monotonic()
    ties = tie_keys(len(corpus.item_ids), settings.seed)
    listed = np.zeros(len(corpus.item_ids), np.int64)
    ranks: list[Ranks] = []
    for start in range(0, len(sessions), BATCH):
        batch = sessions[start : start + BATCH]
        seen = [_rows(corpus, s.liked(corpus.spec) if mask_seen else ()) for s in batch]
        scores = masked(_checked(system, batch, len(corpus.item_ids)), seen)
        ranks += ranks_of(scores, [_rows(corpus, session.targets) for session in batch], ties)
        for row in scores:
            listed[top_rows(row, max(settings.ks), ties)] += 1
        advance(len(batch))
    taken = time.monotonic() - started
    logger.info("%s ranked %d sessions in %.1f s", system.name, len(sessions), taken)
    popularity = users_per_item(corpus) / max(1, len(corpus.known_events.user_ids))
    return SystemResult(
        system.name, session_metrics(ranks, settings.ks), exposure(listed, popularity), taken
    )


def _checked(system: System, sessions: Sequence[Session], items: int) -> NDArray[np.float32]:
    scores = system.scores(sessions)
    if scores.shape != (len(sessions), items):
        raise TrainingError(
            f"{system.name} scored {scores.shape}, not {(len(sessions), items)} (sessions, items)"
        )
    return scores


def _rows(corpus: Corpus, items: Sequence[str]) -> Columns:
    known = {corpus.row_of[item] for item in items if item in corpus.row_of}
    return np.fromiter(sorted(known), np.int64, len(known))
