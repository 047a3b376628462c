"""Optimiser steps of RLSO beside TRL's trainer for the nearest algorithm, RLOO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import orjson

from deploy.bench.bench_broker import Ground
from deploy.bench.contestants.rollout_work import (
    EPOCHS,
    NEW_TOKENS,
    PROMPTS,
    SAMPLES,
    STEP_PROMPTS,
    STEPS,
)
from deploy.bench.requests import requests
from deploy.bench.rows import Figure, at_least, below, median_row
from models.engines.model_files import language_model
from models.profile.prompts import render
from models.settings import Settings

WITHIN_S: Final = 1_800.0
CONTESTANTS: Final = {
    "Palate": "deploy.bench.contestants.palate_rlso",
    "TRL": "deploy.bench.contestants.trl_rloo",
}
WORK: Final = (
    f"{PROMPTS} prompts × {SAMPLES} samples of {NEW_TOKENS} tokens, then {STEPS} steps of "
    f"{STEP_PROMPTS} prompts ({EPOCHS} passes), RLOO with KL, LoRA rank 8"
)

Figures = Mapping[str, float]


def training(ground: Ground) -> list[Figure]:
    """Palate's RLSO with the RLOO objective and TRL's RLOOTrainer: same model, prompts, sizes."""
    present = [name for name in CONTESTANTS if name != "TRL" or find_spec("trl")]
    settings = ground.settings()
    rounds = 1 if ground.quick else 2
    prompts = [render(request) for request in requests(settings, PROMPTS * rounds)]
    measured: dict[str, list[Figures]] = {name: [] for name in present}
    for turn in range(ground.runs):
        for name in present:
            measured[name].append(_run(ground, settings, CONTESTANTS[name], prompts, rounds, turn))
    return [*_each(measured), *_beside(measured)]


def _run(
    ground: Ground,
    settings: Settings,
    module: str,
    prompts: Sequence[str],
    rounds: int,
    turn: int,
) -> Figures:
    folder = settings.data_dir
    folder.mkdir(parents=True, exist_ok=True)
    asked, out = folder / "prompts.json", folder / f"{module}-{turn}.json"
    asked.write_bytes(orjson.dumps(prompts))
    arguments = (str(language_model(settings)), str(asked), str(rounds), str(out))
    with ground.process(settings, module, *arguments) as process:
        process.wait(out.exists, WITHIN_S)
    return _figures(out)


def _figures(path: Path) -> Figures:
    found = orjson.loads(path.read_bytes())
    rollouts = found["rounds"] * PROMPTS * SAMPLES
    return {
        "steps": found["steps"] / found["learning_s"],
        "cpu": found["learning_cpu_s"] / found["steps"],
        "tokens": found["tokens"] / found["rollouts_s"],
        "rollouts": rollouts / found["rollouts_s"],
        "peak": found["peak_mib"],
    }


def _each(measured: Mapping[str, Sequence[Figures]]) -> list[Figure]:
    rows = []
    for name, runs in measured.items():
        said = f"in-process; {WORK}"
        rows += [
            median_row(f"steps, {name}", _all(runs, "steps"), "steps/s", "without rollouts"),
            median_row(f"processor time of a step, {name}", _all(runs, "cpu"), "s"),
            median_row(f"rollouts, {name}", _all(runs, "rollouts"), "rollouts/s", said),
            median_row(f"tokens, {name}", _all(runs, "tokens"), "tokens/s"),
            median_row(f"memory peak, {name}", _all(runs, "peak"), "MiB"),
        ]
    return rows


def _beside(measured: Mapping[str, Sequence[Figures]]) -> list[Figure]:
    if "TRL" not in measured:
        return [Figure("steps, TRL", 0.0, "steps/s", note="TRL is not installed: not run")]
    pairs = list(zip(measured["Palate"], measured["TRL"], strict=True))
    ratios = {key: [ours[key] / theirs[key] for ours, theirs in pairs] for key in pairs[0][0]}
    return [
        at_least("steps/s, Palate / TRL", ratios["steps"], 1.0, "×"),
        below("processor time of a step, Palate / TRL", ratios["cpu"], 1.0, "×"),
        at_least("tokens/s of rollouts, Palate / TRL", ratios["tokens"], 1.0, "×"),
        below("memory peak, Palate / TRL", ratios["peak"], 1.05, "×"),
    ]


def _all(runs: Sequence[Figures], key: str) -> list[float]:
    return [run[key] for run in runs]
