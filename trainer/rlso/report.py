"""What a run of RLSO has come to: held-out rewards beside those of its start, and its curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from trainer.evaluation.bootstrap import Interval, interval
from trainer.pipeline.json_state import RunLog

PARTS: Final = ("reward", "ndcg", "served")  # with the figures of each user in the log
CURVES: Final = (
    "training reward",
    "held-out reward",
    "held-out ndcg",
    "served ndcg",
    "shuffled ndcg",
    "grounding",
    "kl",
    "answer tokens",
    "copied titles",
    "word entropy",
)

LogLine = Mapping[str, Any]


def write_report(log: Path, folder: Path) -> list[Path]:
    """`validation.md`, `curves.jsonl` and `curves.png` of a run's log; the paths."""
    from trainer.evaluation.plots import learning_curves

    records = list(RunLog(log).records())
    table, curves, plot = (
        folder / f"{name}" for name in ("validation.md", "curves.jsonl", "curves.png")
    )
    table.write_text(table_of(records) + "\n")
    curves.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in curves_of(records)))
    return [table, curves, learning_curves(curves, CURVES, plot, step="round")]


def table_of(records: Sequence[LogLine]) -> str:
    """Markdown: every validation, with paired 95 % intervals of the differences to the start."""
    validations = [record for record in records if record["kind"] == "validation"]
    lines = [
        "| rounds | reward | Δ to the start | NDCG, own words | Δ to the start | NDCG, as served "
        "| Δ to the start | shuffled NDCG | grounding | tokens | titles copied |",
        "|---:|---:|---|---:|---|---:|---|---:|---:|---:|---:|",
    ]
    for record in validations:
        apart = {part: difference(validations[0], record, part) for part in PARTS}
        figures = record["figures"]
        lines.append(
            f"| {record['round'] + 1} | {record['reward']:.4f} | {_said(apart['reward'])} "
            f"| {record['ndcg']:.4f} | {_said(apart['ndcg'])} "
            f"| {record['served']:.4f} | {_said(apart['served'])} | {record['shuffled']:.4f} "
            f"| {record['grounding']:.3f} | {figures['tokens']:.1f} | {figures['copied']:.3f} |"
        )
    return "\n".join(lines)


def difference(start: LogLine, now: LogLine, part: str) -> Interval:
    """Mean difference over the same users, with its bootstrap interval."""
    return interval(np.array(now["users"][part]) - np.array(start["users"][part]))


def _said(apart: Interval) -> str:
    return f"{apart.mean:+.4f} ({apart.low:+.4f} … {apart.high:+.4f})"


def curves_of(records: Sequence[LogLine]) -> Iterator[dict[str, float]]:
    """One row per record that has a point of a curve; `round` is the rounds done before it."""
    for record in records:
        match record["kind"]:
            case "round":
                yield {
                    "round": record["round"],
                    "training reward": record["reward"],
                    "grounding": record["grounding"],
                    "answer tokens": record["figures"]["tokens"],
                    "copied titles": record["figures"]["copied"],
                    "word entropy": record["figures"]["entropy"],
                }
            case "validation":
                yield {
                    "round": record["round"] + 1,
                    "held-out reward": record["reward"],
                    "held-out ndcg": record["ndcg"],
                    "served ndcg": record["served"],
                    "shuffled ndcg": record["shuffled"],
                }
            case "step":
                yield {"round": record["round"], "kl": record["kl"]}
