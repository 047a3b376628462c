"""Parts of the test that are looked at apart: by history length, by what is cold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainer.data.corpus import Corpus
from trainer.data.sessions import Session

Mask = NDArray[np.bool_]  # [sessions]
LENGTHS: Final = ((1, 5), (5, 10), (10, 20), (20, 50), (50, None))


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
