"""An evaluation in words and figures: for the terminal, as Markdown, as JSON, per session."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from models.training_settings import metric_names
from trainer.evaluation.ageing import ByAge
from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.evaluate import EvaluationReport

HEADLINE_K: Final = 10

About = Mapping[str, Any]  # command, machine, duration: what the report itself cannot know


def headline_k(report: EvaluationReport) -> int:
    """The cut-off shown in tables: 10 where it was measured."""
    return HEADLINE_K if HEADLINE_K in report.settings.ks else max(report.settings.ks)


def short_table(report: EvaluationReport) -> Iterator[tuple[str, ...]]:
    """Head and rows for a terminal: means, and the interval of what decides."""
    k = headline_k(report)
    others = _compared_with(report)
    head = ("system", f"recall@{k}", f"NDCG@{k}", "95 %", "MRR", "coverage")
    yield (*head, *(f"− {other}" for other in others))
    for system in report.systems:
        ndcg = report.interval(system.name, f"ndcg@{k}")
        yield (
            system.name,
            f"{report.interval(system.name, f'recall@{k}').mean:.4f}",
            f"{ndcg.mean:.4f}",
            f"{ndcg.low:.4f}–{ndcg.high:.4f}",
            f"{report.interval(system.name, 'mrr').mean:.4f}",
            f"{system.exposure.coverage:.2f}",
            *(
                _apart(report, system.name, other, f"ndcg@{k}").partition(" ")[0]
                for other in others
            ),
        )


def columns_of(report: EvaluationReport) -> tuple[str, ...]:
    """Head of the table."""
    k = headline_k(report)
    top = max(report.settings.ks)
    found = ("system", f"recall@{k}", f"NDCG@{k}", "MRR", f"coverage@{top}", f"popularity@{top}")
    return (*found, *(f"NDCG@{k} − {other}" for other in _compared_with(report)))


def rows_of(report: EvaluationReport) -> Iterator[tuple[str, ...]]:
    """One row per system, in the order measured."""
    k = headline_k(report)
    for system in report.systems:
        yield (
            system.name,
            *(_said(report.interval(system.name, m)) for m in (f"recall@{k}", f"ndcg@{k}", "mrr")),
            f"{system.exposure.coverage:.3f}",
            f"{system.exposure.popularity:.4f}",
            *(_apart(report, system.name, other, f"ndcg@{k}") for other in _compared_with(report)),
        )


def _compared_with(report: EvaluationReport) -> list[str]:
    """The systems of `train.evaluation.against` that were measured, if there are others."""
    names = {system.name for system in report.systems}
    return [name for name in report.settings.against if {name} < names]


def _apart(report: EvaluationReport, system: str, other: str, metric: str) -> str:
    if system == other:
        return ""
    found = report.difference(system, other, metric)
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _said(found: Interval) -> str:
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"


def setting_of(report: EvaluationReport) -> str:
    """One paragraph: what was ranked for whom, and under which rules."""
    seen = "left out of ranking" if report.masked else "ranked like all others"
    users = len(set(report.users))
    return (
        f"{report.data}, {report.protocol} split: {len(report.users)} sessions of {users} users "
        f"({report.counts['cold_users']} of them cold, that is without a training event); all "
        f"{report.items} items ranked; {report.counts['cold_target_items']} of "
        f"{report.counts['target_items']} target items cold. Items had before are {seen}; "
        f"{report.repeated:.1%} of the targets are such items; {report.skipped} sessions had no "
        f"other and are left out. Ties in a random order (seed {report.settings.seed}). In "
        f"brackets: 95 % intervals from {report.settings.resamples} resamples of users."
    )


def to_markdown(report: EvaluationReport, about: About) -> str:
    """The whole report as one page."""
    lines = [
        f"# {report.data}: systems side by side",
        "",
        setting_of(report),
        "",
        *_table(columns_of(report), rows_of(report)),
        "",
        "coverage: share of the catalogue that stands in any list; popularity: mean share of "
        "users, known before the test, who had a listed item.",
    ]
    for dimension, labels in report.slices.items():
        lines += ["", f"## By {dimension}", "", *_slice_table(report, dimension, list(labels))]
    lines += ["", "## How", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    return "\n".join(lines)


def _slice_table(report: EvaluationReport, dimension: str, labels: list[str]) -> list[str]:
    metric = f"ndcg@{headline_k(report)}"
    masks = report.slices[dimension]
    head = [f"{label} ({int(masks[label].sum())} sessions)" for label in labels]
    rows = (
        (system.name, *(_said(report.interval(system.name, metric, masks[x])) for x in labels))
        for system in report.systems
    )
    return _table((f"NDCG@{headline_k(report)}", *head), rows)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def to_json(report: EvaluationReport, about: About) -> dict[str, Any]:
    """Everything but the single sessions."""
    names = metric_names(report.settings.ks)
    return {
        "about": dict(about),
        "data": report.data,
        "protocol": report.protocol,
        "mask_seen": report.masked,
        "items": report.items,
        "sessions": len(report.users),
        "skipped": report.skipped,
        "repeated_targets": report.repeated,
        "counts": dict(report.counts),
        "settings": report.settings.model_dump(mode="json"),
        "systems": {
            system.name: {
                "metrics": {name: _listed(report.interval(system.name, name)) for name in names},
                "exposure": system.exposure._asdict(),
                "seconds": round(system.seconds, 1),
                "slices": _slices(report, system.name),
            }
            for system in report.systems
        },
    }


def _slices(report: EvaluationReport, system: str) -> dict[str, dict[str, list[float]]]:
    metric = f"ndcg@{headline_k(report)}"
    return {
        dimension: {
            label: _listed(report.interval(system, metric, mask)) for label, mask in labels.items()
        }
        for dimension, labels in report.slices.items()
    }


def _listed(found: Interval) -> list[float]:
    return [round(float(value), 6) for value in found]


def write(report: EvaluationReport, folder: Path, about: About) -> list[Path]:
    """table.md, results.json and sessions.npz (each session's metrics, to pair runs later)."""
    folder.mkdir(parents=True, exist_ok=True)
    per_session: dict[str, Any] = {
        f"{system.name}/{name}": values
        for system in report.systems
        for name, values in system.metrics.items()
    }
    sessions = folder / "sessions.npz"
    np.savez_compressed(sessions, users=np.array(report.users), **per_session)
    return [
        _written(folder / "table.md", to_markdown(report, about).encode()),
        _written(
            folder / "results.json",
            orjson.dumps(to_json(report, about), option=orjson.OPT_INDENT_2) + b"\n",
        ),
        sessions,
    ]


def write_ages(aged: ByAge, folder: Path) -> Path:
    """ages.md: the metric of every system by the age of what it knew."""
    head = (aged.metric, *(f"{age} ({count} sessions)" for age, count in aged.sessions.items()))
    rows = ((name, *map(_said, curve)) for name, curve in aged.curves.items())
    lines = [
        "# By age",
        "",
        "Each session ranked by what was known at its user's earlier sessions, and at its own; "
        "nothing is left out of ranking. In brackets: 95 % intervals from resamples of users.",
        "",
        *_table(head, rows),
        "",
    ]
    return _written(folder / "ages.md", "\n".join(lines).encode())


def _written(path: Path, content: bytes) -> Path:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    return Path(file.name).replace(path)
