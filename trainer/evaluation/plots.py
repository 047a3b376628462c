"""Pictures of an evaluation and of a training run, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from matplotlib.figure import Figure

from models.errors import TrainingError
from trainer.evaluation.ageing import ByAge
from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.evaluate import EvaluationReport
from trainer.evaluation.report import headline_k

_SIZE: Final = (8.0, 4.5)  # inches
_DPI: Final = 120


def metric_by_slice(report: EvaluationReport, dimension: str, path: Path) -> Path:
    """NDCG of every system in each part of one dimension, for example history length."""
    metric = f"ndcg@{headline_k(report)}"
    parts = report.slices[dimension]
    curves = {
        system.name: [report.interval(system.name, metric, mask) for mask in parts.values()]
        for system in report.systems
    }
    labels = [f"{label}\n({int(mask.sum())})" for label, mask in parts.items()]
    return _curves(curves, labels, f"{dimension} (sessions)", metric, path)


def draw_slices(report: EvaluationReport, folder: Path) -> list[Path]:
    """One picture per dimension with more than one part."""
    return [
        metric_by_slice(report, dimension, folder / f"by-{dimension}.png")
        for dimension, parts in report.slices.items()
        if len(parts) > 1
    ]


def metric_by_age(aged: ByAge, path: Path) -> Path:
    """A metric of each system by the age of what it knew."""
    labels = [f"{label}\n({count})" for label, count in aged.sessions.items()]
    return _curves(aged.curves, labels, "age of what is known (sessions)", aged.metric, path)


def _curves(
    curves: Mapping[str, Sequence[Interval]],
    labels: Sequence[str],
    below: str,
    beside: str,
    path: Path,
) -> Path:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    places = list(range(len(labels)))
    for name, found in curves.items():
        means = [one.mean for one in found]
        down = [one.mean - one.low for one in found]
        up = [one.high - one.mean for one in found]
        axes.errorbar(places, means, yerr=(down, up), marker="o", capsize=3, label=name)
    axes.set_xticks(places, labels)
    axes.set_xlabel(below)
    axes.set_ylabel(beside)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    return _saved(figure, path)


def draw_training(log: Path, folder: Path) -> Path:
    """Learning curves of a training's JSONL log: every numeric field, by step."""
    names = {name for row in _rows(log) for name, value in row.items() if _number(value)}
    fields = sorted(names - {"step", "epoch", "round", "time"})
    return learning_curves(log, fields, folder / f"{log.stem}.png")


def learning_curves(log: Path, fields: Sequence[str], path: Path, step: str = "step") -> Path:
    """One panel per field of a JSONL log of training, over the steps that have it.

    Raises TrainingError when no line of the log has any of the fields.
    """
    rows = _rows(log)
    present = [name for name in fields if any(_number(row.get(name)) for row in rows)]
    if not present:
        raise TrainingError(f"{log} holds none of {', '.join(fields)}; nothing can be drawn")
    figure = Figure(figsize=(_SIZE[0], 2.2 * len(present) + 0.6), layout="constrained")
    for place, name in enumerate(present):
        axes = figure.add_subplot(len(present), 1, place + 1)
        points = [(row.get(step, n), row[name]) for n, row in enumerate(rows) if _has(row, name)]
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 60 else "")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    axes.set_xlabel(step)
    return _saved(figure, path)


def _rows(log: Path) -> list[dict[str, Any]]:
    try:
        lines = log.read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line.strip()]
    except (OSError, orjson.JSONDecodeError) as error:
        raise TrainingError(f"{log} cannot be read as a log of training: {error}") from error


def _has(row: Mapping[str, Any], name: str) -> bool:
    return _number(row.get(name))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _saved(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
    return path
