"""Training of SASRec: every position of every sequence predicts its next item."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import TrainingError
from models.identity import digest
from models.training_settings import SasrecSettings
from trainer.learning import checkpoints
from trainer.learning.loop import CountedOptimiser, LoopOptions, Task, train
from trainer.learning.sasrec import ItemNumbers, Sasrec, full_softmax_loss, padded
from trainer.learning.schedules import half_cosine
from trainer.pipeline.json_state import RunLog

_POOL: Final = 16  # batches whose sequences are sorted by length together: little padding
_LOG: Final = "epochs.jsonl"
_BEST: Final = "best"

ValidateSasrec = Callable[[Sasrec], Mapping[str, float]]

# How well a sequence model ranks held-out next items; what its training stops on.

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


class Trained(NamedTuple):
    """A network and the epoch that it is of, counted from 1."""

    network: Sasrec
    epoch: int


def train_sasrec(
    sequences: Sequence[ItemNumbers],
    items: int,
    validate: ValidateSasrec,
    settings: SasrecSettings,
    folder: Path,
    *,
    metric: str = "ndcg@10",
    device: str = "cpu",
) -> Trained:
    """Train until `metric` of `validate` stops to rise; returns the best epoch's network.

    sequences: item numbers (0 ≤ number < items) per user, oldest first. `folder` takes the
    checkpoint of each epoch, from which a killed run resumes exactly, the best epoch's weights and
    the log `epochs.jsonl`. Raises TrainingError if nothing can be learned or a loss is not finite.
    """
    task = _SasrecTask(sequences, items, settings, folder, device, validate, metric)
    return _trained(task, LoopOptions(settings.epochs, 1, 1, patience=settings.patience))


def refit_sasrec(
    sequences: Sequence[ItemNumbers],
    items: int,
    epochs: int,
    settings: SasrecSettings,
    folder: Path,
    *,
    device: str = "cpu",
) -> Trained:
    """The first `epochs` epochs of the same training, without a validation.

    For sequences that hold what was validated on; otherwise as `train_sasrec`.
    """
    task = _SasrecTask(sequences, items, settings, folder, device)
    return _trained(task, LoopOptions(epochs, 1, 1))


def _trained(task: _SasrecTask, options: LoopOptions) -> Trained:
    progress = train(task, options, task.folder)
    if progress.best_step is not None:
        task.load_best()
    return Trained(task.network.eval(), progress.best_step or progress.step)


class _SasrecTask(Task):
    """SASRec for the training loop, by epochs."""

    name = "SASRec"

    def __init__(
        self,
        sequences: Sequence[ItemNumbers],
        items: int,
        settings: SasrecSettings,
        folder: Path,
        device: str,
        measure: ValidateSasrec | None = None,
        metric: str = "",
    ) -> None:
        """`metric`: of those that `measure` gives, the one that tells which epoch is best."""
        self.pieces = training_pieces(sequences, settings.max_length)
        if not self.pieces:
            raise TrainingError("no user has two items to learn an order from")
        self.settings, self.folder = settings, folder
        self.measure, self.metric = measure, metric
        self.identity = _identity(self.pieces, items, settings)
        torch.manual_seed(settings.seed)
        self.network = Sasrec(items, settings).to(device)
        self.optimiser = CountedOptimiser(
            torch.optim.AdamW(
                self.network.parameters(), lr=settings.learning_rate, weight_decay=0, fused=True
            ),
            "train.sasrec.learning_rate",
        )
        self.log = RunLog(folder / _LOG)
        self._epoch: dict[str, float] = {}  # figures of the last one

    def step(self, number: int) -> float:
        """Train an epoch; its figures are logged with its validation."""
        began = time.perf_counter()
        # Measured on Beauty: after 27 epochs at 1e-3, two at 2e-4 took validation NDCG@10 from
        # .0538 to .0564, as much as the ten before them.
        peak, epochs = self.settings.learning_rate, self.settings.epochs
        self.optimiser.set_rate(half_cosine(number, peak=peak, end=epochs))
        self.network.train()
        rng = np.random.default_rng((self.settings.seed, number))
        total, targets, steps = 0.0, 0, 0
        for batch in batches(self.pieces, self.settings.batch, rng):
            predicted = sum(len(piece) - 1 for piece in batch)
            total += self._batch(batch) * predicted
            targets += predicted
            steps += 1
        seconds = round(time.perf_counter() - began, 1)
        self._epoch = {"steps": steps, "loss": total / targets, "seconds": seconds}
        return total / targets

    def _batch(self, batch: Sequence[ItemNumbers]) -> float:
        """One optimiser step; its loss."""
        device = self.network.items.weight.device
        sequences, lengths = padded(batch)
        real = torch.arange(sequences.shape[1] - 1) < (lengths - 1).unsqueeze(1)
        hidden = self.network(sequences[:, :-1].to(device))[real.to(device)]  # [positions, width]
        targets = sequences[:, 1:][real].to(device)
        products = getattr(torch, self.settings.products)
        loss = full_softmax_loss(hidden, self.network.items.weight, targets, products)
        loss.backward()
        value = float(loss.detach())
        self.optimiser.step(value)
        return value

    def validate(self, done: int) -> float | None:
        """See Task."""
        figures = dict(self.measure(self.network.eval())) if self.measure else {}
        self.log.write("epoch", done - 1, epoch=done, **self._epoch, **figures)
        return figures[self.metric] if self.measure else None

    def keep_best(self) -> None:
        """See Task."""
        checkpoints.save(self.folder / _BEST, self.weights(), self.identity)

    def load_best(self) -> None:
        """The weights that were kept last."""
        best = checkpoints.load(self.folder / _BEST, self.identity)
        if best is None:
            raise TrainingError(f"{self.folder / _BEST} is gone; remove {self.folder}, train anew")
        self.load_weights(best)

    def weights(self) -> Mapping[str, Tensor]:
        """See Task."""
        return self.network.state_dict()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """See Task."""
        self.network.load_state_dict(weights)


def training_pieces(sequences: Sequence[ItemNumbers], max_length: int) -> list[ItemNumbers]:
    """Sequences cut into pieces of at most max_length + 1 items, each pair of neighbours once."""
    return [
        sequence[start : start + max_length + 1]
        for sequence in sequences
        for start in range(0, len(sequence) - 1, max_length)
    ]


def batches(
    pieces: Sequence[ItemNumbers], size: int, rng: np.random.Generator
) -> Iterator[list[ItemNumbers]]:
    """All pieces in a random order, but pieces of like length together."""
    order = rng.permutation(len(pieces))
    groups: list[Any] = []
    for start in range(0, len(order), size * _POOL):
        pool = order[start : start + size * _POOL]
        pool = pool[np.argsort([len(pieces[number]) for number in pool], kind="stable")]
        groups += [pool[place : place + size] for place in range(0, len(pool), size)]
    for number in rng.permutation(len(groups)):
        yield [pieces[piece] for piece in groups[number]]


def _identity(pieces: Sequence[ItemNumbers], items: int, settings: SasrecSettings) -> str:
    """What a checkpoint must agree on; a run may be given more patience later."""
    lasting = settings.model_dump(exclude={"patience"})
    content = digest(len(pieces), np.concatenate(pieces).tolist())
    return digest("sasrec", lasting, items, content)
