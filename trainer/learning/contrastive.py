"""CL: the embedder learns to put a user's text near the items that came next (methods §7).

    result = train_embedder(pairs, item_texts, base, settings, folder)
    SentenceEmbedder(result.embedder, …)

The same code trains on profiles and on raw history text (NoProfile). It has an optimiser of its
own, whose steps the training loop counts, because the authors' 800 "updates" were 50 (methods
§7.6).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from trainer.learning.infonce import HardNegatives, contrastive_loss
from trainer.learning.loop import CountedOptimiser, LoopOptions, OnStep, Task, train
from trainer.learning.pairs import Draw, Pair, draw, negatives_of, shares
from trainer.learning.schedules import linear_with_warmup
from trainer.learning.text_tower import TextTower
from trainer.pipeline.json_state import RunLog

EMBEDDER: Final = "embedder"  # the trained model's folder, in the run's folder
LOG_FILE: Final = "contrastive.jsonl"
_NO_PART_OF_THE_RUN: Final = {"validate_every", "checkpoint_every"}

Embed = Callable[[Sequence[str]], Vectors]
ValidateTower = Callable[[Embed], float]  # greater is better

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


def train_embedder(
    pairs: Sequence[Pair],
    item_texts: Mapping[str, str],
    base: ModelSource,
    settings: ContrastiveSettings,
    out_dir: Path,
    *,
    validate: ValidateTower | None = None,
    device: str | None = None,
    on_step: OnStep = lambda _done, _loss: None,
) -> ContrastiveResult:
    """Train `base` for `settings.steps` optimiser steps; write the best weights to out_dir.

    `item_texts` is the catalogue as the indexer embeds it. With `validate` the step with the
    greatest value is kept (the base is measured too, as step 0), else the last. A killed run
    resumes from its checkpoint with the same losses. `on_step` is told of each step.
    Raises TrainingError if there are too few pairs, the loss is not finite or the disk is full.
    """
    task = _ContrastiveTask(pairs, item_texts, base, settings, out_dir, device, validate)
    every = settings.validate_every, settings.checkpoint_every
    progress = train(
        task, LoopOptions(settings.steps, *every, validate_first=True), out_dir, on_step
    )
    if progress.best_step is None:
        task.keep_best()
    return ContrastiveResult(
        embedder=task.embedder,
        steps=progress.step,
        best_step=progress.step if progress.best_step is None else progress.best_step,
        validations=progress.validations,
        losses=progress.losses,
    )


class _ContrastiveTask(Task):
    """CL for the training loop, by optimiser steps."""

    name = "contrastive"

    def __init__(
        self,
        pairs: Sequence[Pair],
        item_texts: Mapping[str, str],
        base: ModelSource,
        settings: ContrastiveSettings,
        folder: Path,
        device: str | None,
        validation: ValidateTower | None,
    ) -> None:
        if len(pairs) < 2:
            raise TrainingError(f"contrastive training needs two pairs, there are {len(pairs)}")
        self.pairs, self.item_texts, self.settings = pairs, item_texts, settings
        self.embedder, self.validation = folder / EMBEDDER, validation
        torch.manual_seed(settings.seed)
        self.tower = TextTower(base, settings, device)
        self.tower.network.train()
        self.identity = _identity(self.tower, pairs, item_texts, settings)
        self.optimiser = CountedOptimiser(
            torch.optim.AdamW(
                self.tower.network.parameters(),
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
                fused=True,
            ),
            "train.contrastive.learning_rate",
            settings.gradient_norm,
        )
        self.share = shares(pairs) if settings.logq else None
        self.mined = self._mined() if settings.hard_negatives else None
        self.log = RunLog(folder / LOG_FILE)

    def step(self, number: int) -> float:
        """One optimiser step; its loss before the step."""
        began = time.perf_counter()
        rate = _rate(number, self.settings)
        self.optimiser.set_rate(rate)
        loss = self._loss(draw(self.pairs, self.settings.batch, number, self.settings.seed))
        loss.backward()
        value = float(loss.detach())
        norm = self.optimiser.step(value)
        self.log.write(
            "step",
            number,
            loss=value,
            learning_rate=rate,
            gradient_norm=norm,
            seconds=round(time.perf_counter() - began, 3),
        )
        return value

    def _loss(self, batch: Draw) -> Tensor:
        profiles = self.tower.encode([self.pairs[row].text for row in batch.rows])
        items = self.tower.encode([self.item_texts[item] for item in batch.positives])
        negatives = negatives_of(self.pairs, batch, self.share)
        device = profiles.device
        return contrastive_loss(
            profiles,
            items,
            negatives.to(device),
            temperature=self.settings.temperature,
            hard=self._hard(batch, device),
            symmetric=self.settings.symmetric,
            matryoshka=self.settings.matryoshka,
        )

    def _hard(self, batch: Draw, device: torch.device) -> HardNegatives | None:
        if self.mined is None:
            return None
        mined = [self.mined[row] for row in batch.rows]
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

    def validate(self, done: int) -> float | None:
        """See Task."""
        if self.validation is None:
            return None
        value = self.validation(self.tower.embed)
        self.log.write("validation", max(0, done - 1), value=value)
        return value

    def keep_best(self) -> None:
        """See Task."""
        self.tower.export(self.embedder)

    def weights(self) -> Mapping[str, Tensor]:
        """See Task."""
        return self.tower.network.state_dict()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """See Task."""
        self.tower.network.load_state_dict(weights)


def _rate(step: int, settings: ContrastiveSettings) -> float:
    """The learning rate of a step, from 0."""
    warmup = max(1, round(settings.warmup * settings.steps))
    return linear_with_warmup(step, peak=settings.learning_rate, warmup=warmup, end=settings.steps)


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
