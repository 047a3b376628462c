"""Training of SASRec: every position of every sequence predicts its next item."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import TrainingError
from models.identity import digest
from models.training_settings import SasrecSettings
from trainer.learning import checkpoints
from trainer.learning.sasrec import ItemNumbers, Sasrec, full_softmax_loss, padded

_POOL: Final = 16  # batches whose sequences are sorted by length together: little padding
_LOG: Final = "epochs.jsonl"

ValidateSasrec = Callable[[Sasrec], Mapping[str, float]]

logger = logging.getLogger(__name__)


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


@dataclass(slots=True)
class SasrecState:
    """What a run has seen so far; all of it is in the checkpoint."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch
    best_epoch: int = 0
    best_value: float = float("-inf")

    def take(self, network: Sasrec, line: dict[str, float], value: float) -> None:
        """Note an epoch, and its weights if it is the best."""
        self.epochs.append(line)
        if value > self.best_value:
            self.best_value, self.best_epoch = value, len(self.epochs)
            self.best = {name: value.clone() for name, value in network.state_dict().items()}

    def finished(self, epochs: int, patience: int) -> bool:
        """Whether the last epoch is done or validation has stopped to rise."""
        done = len(self.epochs)
        return done >= epochs or done - self.best_epoch >= patience


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
    checkpoint of each epoch, from which a killed run goes on exactly, and the log `epochs.jsonl`.
    Raises TrainingError if nothing can be learned or the loss is not finite.
    """

    def judge(network: Sasrec, _epoch: int) -> tuple[dict[str, float], float]:
        figures = dict(validate(network))
        return figures, figures[metric]

    return _train(sequences, items, judge, settings.epochs, settings, folder, device)


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

    def judge(_network: Sasrec, epoch: int) -> tuple[dict[str, float], float]:
        return {}, float(epoch)  # the last one is kept

    return _train(sequences, items, judge, epochs, settings, folder, device)


def _train(
    sequences: Sequence[ItemNumbers],
    items: int,
    judge: Callable[[Sasrec, int], tuple[dict[str, float], float]],
    epochs: int,
    settings: SasrecSettings,
    folder: Path,
    device: str,
) -> Trained:
    pieces = training_pieces(sequences, settings.max_length)
    if not pieces:
        raise TrainingError("no user has two items to learn an order from")
    identity = _identity(pieces, items, settings)
    torch.manual_seed(settings.seed)
    network = Sasrec(items, settings).to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=0, fused=True
    )
    progress = _resumed(folder, identity, network, optimiser)
    while not progress.finished(epochs, settings.patience):
        for group in optimiser.param_groups:
            group["lr"] = rate(len(progress.epochs), settings)
        line = _epoch(network, optimiser, pieces, settings, len(progress.epochs))
        figures, value = judge(network.eval(), len(progress.epochs) + 1)
        line |= figures
        progress.take(network, line, value)
        _keep(folder, identity, network, optimiser, progress)
        logger.info("SASRec epoch %s", line)
    network.load_state_dict(progress.best)
    return Trained(network.eval(), progress.best_epoch)


def rate(epoch: int, settings: SasrecSettings) -> float:
    """Learning rate of an epoch (from 0): half a cosine over all epochs.

    Measured on Beauty: after 27 epochs at 1e-3, two at 2e-4 took validation NDCG@10 from .0538
    to .0564, as much as the ten before them.
    """
    return settings.learning_rate * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2


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


def _epoch(
    network: Sasrec,
    optimiser: torch.optim.Optimizer,
    pieces: Sequence[ItemNumbers],
    settings: SasrecSettings,
    number: int,
) -> dict[str, float]:
    began = time.perf_counter()
    network.train()
    rng = np.random.default_rng((settings.seed, number))
    total, targets, steps = 0.0, 0, 0
    for batch in batches(pieces, settings.batch, rng):
        predicted = sum(len(piece) - 1 for piece in batch)
        total += _step(network, optimiser, batch, settings) * predicted
        targets += predicted
        steps += 1
    return {
        "epoch": number + 1,
        "steps": steps,
        "loss": total / targets,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _step(
    network: Sasrec,
    optimiser: torch.optim.Optimizer,
    batch: Sequence[ItemNumbers],
    settings: SasrecSettings,
) -> float:
    device = network.items.weight.device
    sequences, lengths = padded(batch)
    real = torch.arange(sequences.shape[1] - 1) < (lengths - 1).unsqueeze(1)  # [users, length - 1]
    hidden = network(sequences[:, :-1].to(device))[real.to(device)]  # [positions, width]
    targets = sequences[:, 1:][real].to(device)
    products = getattr(torch, settings.products)
    loss = full_softmax_loss(hidden, network.items.weight, targets, products)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if not torch.isfinite(loss):
        raise TrainingError("SASRec's loss is not finite; lower sasrec.learning_rate")
    return float(loss.detach())


def _resumed(
    folder: Path, identity: str, network: Sasrec, optimiser: torch.optim.Optimizer
) -> SasrecState:
    held = checkpoints.load(folder, identity)
    if held is None:
        return SasrecState()
    network.load_state_dict(held["network"])
    optimiser.load_state_dict(held["optimiser"])
    checkpoints.set_random_state(held["random"])
    return SasrecState(**held["progress"])


def _keep(
    folder: Path,
    identity: str,
    network: Sasrec,
    optimiser: torch.optim.Optimizer,
    progress: SasrecState,
) -> None:
    state = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": checkpoints.random_state(),
        "progress": {name: getattr(progress, name) for name in SasrecState.__slots__},
    }
    checkpoints.save(folder, state, identity)
    (folder / _LOG).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in progress.epochs))


def _identity(pieces: Sequence[ItemNumbers], items: int, settings: SasrecSettings) -> str:
    """What a checkpoint must agree on; a run may be given more patience later."""
    lasting = settings.model_dump(exclude={"patience"})
    content = digest(len(pieces), np.concatenate(pieces).tolist())
    return digest("sasrec", lasting, items, content)
