"""SASRec as a system: trained on what a corpus knows before its test, asked for its sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.errors import TrainingError
from models.settings import Settings
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.data.sources import Events
from trainer.evaluation.evaluate import masks_seen, rankable
from trainer.evaluation.systems import ScoreMatrix
from trainer.learning.sasrec import ItemNumbers, Sasrec
from trainer.learning.sasrec_training import NextItems, refit_sasrec, train_sasrec

REFIT: Final = "refit"


class SequenceSystem:
    """Scores of a trained sequence model."""

    def __init__(self, name: str, network: Sasrec, reader: HistoryReader) -> None:
        self.name = name
        self._network, self._reader = network, reader

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        """Logits of the next item; items that it was not trained on are below all others."""
        found = self._network.scores([self._reader.rows(session) for session in sessions])
        scores: ScoreMatrix = found.cpu().numpy()
        below = scores.min(axis=1, keepdims=True) - 1
        return np.where(self._reader.trained, scores, below)


class HistoryReader:
    """Sessions → item numbers that a model trained on these events of the corpus knows."""

    def __init__(self, corpus: Corpus, events: Events) -> None:
        self._corpus = corpus
        self.trained: NDArray[np.bool_] = np.zeros(len(corpus.item_ids), bool)
        self.trained[events.items] = True

    def rows(self, session: Session) -> ItemNumbers:
        """The items liked before the session, oldest first; unknown and untrained ones left out."""
        row_of = self._corpus.row_of
        rows = [row_of[item] for item in session.liked(self._corpus.spec) if item in row_of]
        return np.array([row for row in rows if self.trained[row]], np.int64)


def fit_sasrec(
    corpus: Corpus, settings: Settings, folder: Path, *, device: str | None = None
) -> SequenceSystem:
    """Train on the training events until the validation sessions' first targets rank no better,
    then as many epochs on all that is known before the test.

    The test's histories hold the validation's items, and the counted systems have counted them.
    `folder` keeps the runs: a finished one is read back, a killed one goes on.
    """
    chosen, items = settings.train.sasrec, len(corpus.item_ids)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    training, known = corpus.training_events, corpus.known_events
    reader = HistoryReader(corpus, training)
    validation = next_items(corpus, reader, settings)
    found = train_sasrec(_sequences(training), items, validation, chosen, folder, device=device)
    if len(known.items) > len(training.items):
        reader = HistoryReader(corpus, known)
        found = refit_sasrec(
            _sequences(known), items, found.epoch, chosen, folder / REFIT, device=device
        )
    return SequenceSystem("sasrec", found.network, reader)


def _sequences(events: Events) -> list[ItemNumbers]:
    return [sequence.astype(np.int64) for sequence in events.sequences()]


def next_items(corpus: Corpus, reader: HistoryReader, settings: Settings) -> NextItems:
    """What the training stops by: the first next item of each validation session that is ranked."""
    mask_seen = masks_seen(settings.train.evaluation, corpus.protocol)
    sessions = rankable(corpus, corpus.sessions.validation, mask_seen)
    if not sessions:
        raise TrainingError(f"{corpus.name}: no validation session to stop SASRec's training on")
    return NextItems(
        [reader.rows(session) for session in sessions],
        np.array([corpus.row_of[session.targets[0]] for session in sessions], np.int64),
        mask_seen=mask_seen,
    )
