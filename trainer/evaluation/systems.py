"""What evaluation asks of a system: a score for every item of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.data.sessions import Session

ScoreMatrix = NDArray[np.float32]  # [sessions, items] in the order of Corpus.item_ids


class System(Protocol):
    """Anything that ranks the catalogue for a session."""

    name: str

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        """Higher is better; it may use nothing of a session but what was known at `as_of`."""
        ...
