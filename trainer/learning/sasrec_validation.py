"""How well a sequence model ranks held-out next items; what its training stops on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.learning.sasrec import ItemNumbers, Sasrec

_USERS_AT_ONCE: Final = 512  # times 12,000 items: 25 MB of scores


@dataclass(frozen=True, slots=True)
class NextItems:
    """Histories and the one item that followed each; called with a network, measures it."""

    histories: Sequence[ItemNumbers]
    targets: ItemNumbers  # [users]
    mask_seen: bool = True  # items of the history are not ranked
    cutoff: int = 10

    def __call__(self, network: Sasrec) -> dict[str, float]:
        """Recall and NDCG at the cut-off, over all items."""
        ranks = self.ranks(network)
        gains = np.where(ranks <= self.cutoff, 1 / np.log2(ranks + 1), 0.0)
        return {
            f"recall@{self.cutoff}": float(np.mean(gains > 0)),
            f"ndcg@{self.cutoff}": float(np.mean(gains)),
        }

    def ranks(self, network: Sasrec) -> NDArray[np.int64]:
        """[users] 1-based rank of each target; among equal scores the last."""
        ranks = np.zeros(len(self.histories), np.int64)
        for rows in self._batches():
            histories = [self.histories[row] for row in rows]
            targets = torch.from_numpy(self.targets[rows])
            ranks[rows] = self._ranked(network.scores(histories).cpu(), histories, targets)
        return ranks

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        """Users with histories of like length together: most are short, some fill the model."""
        order = np.argsort([len(history) for history in self.histories], kind="stable")
        for start in range(0, len(order), _USERS_AT_ONCE):
            yield order[start : start + _USERS_AT_ONCE]

    def _ranked(
        self, scores: Tensor, histories: Sequence[ItemNumbers], targets: Tensor
    ) -> NDArray[np.int64]:
        of_target = scores.gather(1, targets.unsqueeze(1))
        if self.mask_seen:
            for row, history in zip(scores, histories, strict=True):
                row[torch.from_numpy(history)] = -torch.inf
        # A target seen before is unmasked again: where repeats are masked there are none.
        scores.scatter_(1, targets.unsqueeze(1), of_target)
        ranks: NDArray[np.int64] = (scores >= of_target).sum(dim=1).numpy()
        return ranks
