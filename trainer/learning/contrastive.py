"""CL: the embedder learns to put a user's text near the items that came next (methods §7).

    result = train_embedder(pairs, item_texts, base, settings, folder)
    SentenceEmbedder(result.embedder, …)

The same code trains on profiles and on raw history text (NoProfile). It has an optimiser of its
own and counts its steps by the optimiser's own state, because the authors' 800 "updates" were 50
(methods §7.6).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.engines.model_files import ModelSource
from models.errors import TrainingError
from models.identity import digest
from models.ports import Vectors
from models.training_settings import ContrastiveSettings
from trainer.learning import checkpoints
from trainer.learning.infonce import HardNegatives, contrastive_loss
from trainer.learning.pairs import Draw, Pair, draws, negatives_of, shares
from trainer.learning.text_tower import TextTower
from trainer.pipeline.json_state import RunLog

EMBEDDER: Final = "embedder"  # the trained model's folder, in the run's folder
LOG_FILE: Final = "contrastive.jsonl"
_BEST: Final = "best"
_NO_PART_OF_THE_RUN: Final = {"validate_every", "checkpoint_every"}

Embed = Callable[[Sequence[str]], Vectors]
ValidateTower = Callable[[Embed], float]  # greater is better

logger = logging.getLogger(__name__)


# Hard negatives that are probably not false ones.
#
# The items nearest to a user's text are the most instructive negatives, and the likeliest to be
# liked unseen: taken as they come they halve the ranking's quality (methods §7.4). So one is kept
# only below a share of the positive's score (NV-Retriever's TopK-PercPos, arXiv 2407.15831).


def mine(
    profiles: Vectors,
    items: Vectors,
    positives: Sequence[NDArray[np.int64]],
    had: Sequence[NDArray[np.int64]],
    *,
    count: int,
    below: float,
) -> list[NDArray[np.int64]]:
    """Per profile up to `count` item rows, best first.

    profiles: [pairs, dimension]; items: [items, dimension]; unit length. None of them is a
    positive or was had, and all score below `below` × the lowest score of the positives; a pair
    whose positives score 0 or less gets none.
    """
    return [
        _of_one(items @ profile, own, known, count, below)
        for profile, own, known in zip(profiles, positives, had, strict=True)
    ]


def _of_one(
    scores: NDArray[np.float32],
    positives: NDArray[np.int64],
    had: NDArray[np.int64],
    count: int,
    below: float,
) -> NDArray[np.int64]:
    lowest = float(scores[positives].min())
    if lowest <= 0:
        return np.zeros(0, np.int64)
    kept = scores < below * lowest
    kept[positives], kept[had] = False, False
    found = np.flatnonzero(kept)
    best = np.lexsort((found, -scores[found]))[:count]
    return found[best]


@dataclass(frozen=True, slots=True)
class ContrastiveResult:
    """What came of a run."""

    embedder: Path  # loads with sentence-transformers
    steps: int  # optimiser steps done
    best_step: int  # whose weights are in `embedder`; 0 is the base
    validations: Mapping[int, float]  # by step; empty without a validation
    losses: Sequence[float]  # by step


@dataclass(slots=True)
class _Seen:
    """What a run has seen so far; all of it is in the checkpoint."""

    losses: list[float] = field(default_factory=list)
    validations: dict[int, float] = field(default_factory=dict)
    best_step: int = -1


def train_embedder(
    pairs: Sequence[Pair],
    item_texts: Mapping[str, str],
    base: ModelSource,
    settings: ContrastiveSettings,
    out_dir: Path,
    *,
    validate: ValidateTower | None = None,
    device: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> ContrastiveResult:
    """Train `base` for `settings.steps` optimiser steps; write the best weights to out_dir.

    `item_texts` is the catalogue as the indexer embeds it. With `validate` the step with the
    greatest value is kept (the base is measured too, as step 0), else the last. A killed run
    goes on from its checkpoint with the same losses. `advance` is told of steps done.
    Raises TrainingError if there are too few pairs, the loss is not finite or the disk is full.
    """
    run = _ContrastiveRun(pairs, item_texts, base, settings, out_dir, device)
    run.resume()
    advance(run.step)
    if validate and not run.seen.validations:
        run.note(validate(run.tower.embed))
    while run.step < settings.steps:
        until = run.next_stop()
        for draw in draws(pairs, settings.batch, range(run.step, until), settings.seed):
            run.learn(draw)
            advance(1)
        if validate and run.due(settings.validate_every):
            run.note(validate(run.tower.embed))
        run.keep()
    return run.finish()


class _ContrastiveRun:
    """Tower, optimiser and what they have seen."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        item_texts: Mapping[str, str],
        base: ModelSource,
        settings: ContrastiveSettings,
        folder: Path,
        device: str | None,
    ) -> None:
        if len(pairs) < 2:
            raise TrainingError(f"contrastive training needs two pairs, there are {len(pairs)}")
        self.pairs, self.item_texts = pairs, item_texts
        self.settings, self.folder = settings, folder
        torch.manual_seed(settings.seed)
        self.tower = TextTower(base, settings, device)
        self.tower.network.train()
        self.identity = _identity(self.tower, pairs, item_texts, settings)
        self.optimiser = torch.optim.AdamW(
            self.tower.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.seen = _Seen()
        self.share = shares(pairs) if settings.logq else None
        self.mined = self._mined() if settings.hard_negatives else None
        self.log = RunLog(folder / LOG_FILE)

    @property
    def step(self) -> int:
        return len(self.seen.losses)

    def resume(self) -> None:
        held = checkpoints.load(self.folder, self.identity)
        if held is not None:
            self.tower.network.load_state_dict(held["network"])
            self.optimiser.load_state_dict(held["optimiser"])
            checkpoints.set_random_state(held["random"])
            self.seen = _Seen(**held["seen"])
        self.log.forget_from(self.step)

    def keep(self) -> None:
        if self.step < self.settings.steps and not self.due(self.settings.checkpoint_every):
            return
        state = {
            "network": self.tower.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": checkpoints.random_state(),
            "seen": {name: getattr(self.seen, name) for name in _Seen.__slots__},
        }
        checkpoints.save(self.folder, state, self.identity)

    def due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def next_stop(self) -> int:
        """The next step after which something is to be done besides learning."""
        every = (self.settings.validate_every, self.settings.checkpoint_every)
        return min(self.settings.steps, *(self.step - self.step % n + n for n in every))

    def learn(self, draw: Draw) -> None:
        """One optimiser step."""
        began = time.perf_counter()
        rate = _rate(self.step, self.settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._loss(draw)
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            self.tower.network.parameters(), self.settings.gradient_norm
        )
        if not torch.isfinite(loss) or not torch.isfinite(norm):
            raise TrainingError(
                f"the contrastive loss of step {self.step} is not finite; lower "
                "train.contrastive.learning_rate"
            )
        self.optimiser.step()
        self.seen.losses.append(float(loss.detach()))
        self.log.write(
            "step",
            self.step - 1,
            loss=self.seen.losses[-1],
            learning_rate=rate,
            gradient_norm=float(norm),
            seconds=round(time.perf_counter() - began, 3),
        )

    def _loss(self, draw: Draw) -> Tensor:
        profiles = self.tower.encode([self.pairs[row].text for row in draw.rows])
        items = self.tower.encode([self.item_texts[item] for item in draw.positives])
        negatives = negatives_of(self.pairs, draw, self.share)
        device = profiles.device
        return contrastive_loss(
            profiles,
            items,
            negatives.to(device),
            temperature=self.settings.temperature,
            hard=self._hard(draw, device),
            symmetric=self.settings.symmetric,
            matryoshka=self.settings.matryoshka,
        )

    def _hard(self, draw: Draw, device: torch.device) -> HardNegatives | None:
        if self.mined is None:
            return None
        mined = [self.mined[row] for row in draw.rows]
        texts = [self.item_texts[item] for items in mined for item in items]
        width, count = self.tower.dimension, self.settings.hard_negatives
        vectors = torch.zeros(len(mined), count, width, device=device)
        allowed = torch.tensor(
            [[place < len(items) for place in range(count)] for items in mined], device=device
        )
        if texts:
            vectors[allowed] = self.tower.encode(texts)
        return HardNegatives(vectors, allowed)

    def _mined(self) -> list[list[str]]:
        """Hard negatives of every pair, by the base model."""
        names = list(self.item_texts)
        row_of = {name: row for row, name in enumerate(names)}

        def rows(items: Sequence[str]) -> Any:
            return torch.tensor([row_of[i] for i in items if i in row_of]).long().numpy()

        found = mine(
            self.tower.embed([pair.text for pair in self.pairs]),
            self.tower.embed([self.item_texts[name] for name in names]),
            [rows(pair.positives) for pair in self.pairs],
            [rows(sorted(pair.had)) for pair in self.pairs],
            count=self.settings.hard_negatives,
            below=self.settings.hard_below,
        )
        return [[names[row] for row in items] for items in found]

    def note(self, value: float) -> None:
        """Take a validation's value; keep the weights if none was greater."""
        best = self.seen.validations.get(self.seen.best_step, float("-inf"))
        self.seen.validations[self.step] = value
        self.log.write("validation", max(0, self.step - 1), value=value)
        logger.info("contrastive step %d: validation %.5f", self.step, value)
        if value > best:
            self.seen.best_step = self.step
            weights = {"network": self.tower.network.state_dict()}
            checkpoints.save(self.folder / _BEST, weights, self.identity)

    def finish(self) -> ContrastiveResult:
        """Check the count of steps, write the embedder."""
        _assert_steps(self.optimiser, self.step)
        best = checkpoints.load(self.folder / _BEST, self.identity)
        if best is not None:
            self.tower.network.load_state_dict(best["network"])
        self.tower.export(self.folder / EMBEDDER)
        return ContrastiveResult(
            embedder=self.folder / EMBEDDER,
            steps=self.step,
            best_step=self.seen.best_step if best is not None else self.step,
            validations=dict(self.seen.validations),
            losses=tuple(self.seen.losses),
        )


def _rate(step: int, settings: ContrastiveSettings) -> float:
    """Learning rate of a step (from 0): a linear rise, then a linear fall to 0 after the last."""
    rising = max(1, round(settings.warmup * settings.steps))
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    left = (settings.steps - step) / max(1, settings.steps - rising)
    return settings.learning_rate * min(1.0, left)


def _assert_steps(optimiser: torch.optim.Optimizer, steps: int) -> None:
    counted = max((int(state["step"]) for state in optimiser.state.values()), default=0)
    if counted != steps:
        raise TrainingError(f"the optimiser made {counted} steps where {steps} were counted")


def _identity(
    tower: TextTower,
    pairs: Sequence[Pair],
    item_texts: Mapping[str, str],
    settings: ContrastiveSettings,
) -> str:
    """What a checkpoint must agree on."""
    content = [(pair.text, pair.positives, sorted(pair.had)) for pair in pairs]
    lasting = settings.model_dump(mode="json", exclude=_NO_PART_OF_THE_RUN)
    return digest("contrastive", tower.fingerprint(), lasting, content, dict(item_texts))
