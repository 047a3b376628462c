"""What a round of reinforcement learning is measured on, the same for Palate and for TRL."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson
import psutil

PROMPTS: Final = 4  # of one round
SAMPLES: Final = 4
STEP_PROMPTS: Final = 2  # of one optimiser step
EPOCHS: Final = 2
NEW_TOKENS: Final = 32  # short: hardly a completion ends before, so both write the same number
STEPS: Final = EPOCHS * PROMPTS // STEP_PROMPTS  # of one round
SEED: Final = 7
LEARNING_RATE: Final = 1e-4
KL: Final = 0.02


@dataclass(slots=True)
class WorkSeconds:
    """Seconds of one process, and what it did in them."""

    rounds: int = 0
    steps: int = 0
    tokens: int = 0
    rollouts_s: float = 0.0
    learning_s: float = 0.0
    rollouts_cpu_s: float = 0.0
    learning_cpu_s: float = 0.0
    peak_mib: float = 0.0

    @contextmanager
    def rolling_out(self) -> Iterator[None]:
        """Count what is done within as rollouts."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.rollouts_s += time.perf_counter() - wall
        self.rollouts_cpu_s += time.process_time() - processor

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Count what is done within as learning: log-probabilities and optimiser steps."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.learning_s += time.perf_counter() - wall
        self.learning_cpu_s += time.process_time() - processor

    def write(self, path: Path) -> None:
        """Leave the figures for who started this process."""
        self.peak_mib = peak_mib()
        draft = path.with_suffix(".tmp")
        draft.write_bytes(orjson.dumps(asdict(self)))
        draft.rename(path)  # who waits for the file finds it whole


def peak_mib() -> float:
    """Most memory that this process has held."""
    if sys.platform == "linux":
        (line,) = [
            line
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM:")
        ]
        return int(line.split()[1]) / 1024
    return psutil.Process().memory_info().rss / 2**20


def arguments() -> tuple[Path, list[str], int, Path]:
    """(model folder, prompts, rounds, file of the figures) from the command line."""
    model, asked, rounds, out = sys.argv[1:]
    return Path(model), orjson.loads(Path(asked).read_bytes()), int(rounds), Path(out)
