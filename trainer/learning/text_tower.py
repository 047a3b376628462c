"""A sentence-transformers model while it is trained: texts → vectors with gradients.

Pooling and normalisation are the model's own modules, so what is trained is what serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from models.durable import making
from models.engines.embedder import sentence_transformer
from models.engines.model_files import ModelSource
from models.errors import TrainingError
from models.ports import Vectors
from models.training_settings import ContrastiveSettings

_CHUNK: Final = 16  # texts of like length encoded together: less padding, same gradients


class TextTower:
    """One encoder for users and items. It is a TextEmbedder too."""

    def __init__(
        self, source: ModelSource, settings: ContrastiveSettings, device: str | None = None
    ) -> None:
        try:
            self.network = sentence_transformer(source, device)
        except (OSError, ValueError) as error:
            raise TrainingError(f"the embedder {source} cannot be loaded: {error}") from error
        self.model = str(source)
        self.dimension = int(self.network.get_embedding_dimension() or 0)
        self._served_length = self.network.max_seq_length
        longest = self._served_length or settings.max_tokens
        self.network.max_seq_length = min(longest, settings.max_tokens)
        self._low = settings.precision == "bfloat16"

    def encode(self, texts: Sequence[str]) -> Tensor:
        """[texts, dimension] with gradients, in the mode (train, eval) that the network is in."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        made = [
            self._chunk([texts[row] for row in order[start : start + _CHUNK]])
            for start in range(0, len(order), _CHUNK)
        ]
        places = torch.tensor(order, device=self.network.device).argsort()
        return torch.cat(made)[places]

    def _chunk(self, texts: list[str]) -> Tensor:
        device = self.network.device
        features: dict[str, Any] = self.network.preprocess(texts)
        moved = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in features.items()
        }
        with torch.autocast(device.type, torch.bfloat16, enabled=self._low):
            vectors: Tensor = self.network(moved)["sentence_embedding"]
        return vectors.float()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, dimension] of unit length, without gradients or dropout."""
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        was_training = self.network.training
        self.network.eval()
        with torch.no_grad():
            made = torch.nn.functional.normalize(self.encode(texts), dim=1)
        self.network.train(was_training)
        return np.asarray(made.cpu().numpy(), np.float32)

    def fingerprint(self) -> str:
        """sha256 over all weights."""
        found = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def export(self, folder: Path) -> None:
        """Write the model so that sentence-transformers loads it from `folder`, replacing it."""
        served, self.network.max_seq_length = self.network.max_seq_length, self._served_length
        try:
            with making(folder, replace=True) as draft:
                self.network.save(str(draft), create_model_card=False)
        except OSError as error:
            raise TrainingError(f"the embedder cannot be written to {folder}: {error}") from error
        finally:
            self.network.max_seq_length = served
