"""What a run came to: a JSON file, and a table by kind for people."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tests.faults.driver import Outcome

VERDICTS = ("lost", "doubled", "wrong")


def summary(outcomes: Sequence[Outcome], seed: int, commit: str) -> dict[str, Any]:
    """The whole run. A group's findings count for each of its kinds, since it cannot tell."""
    injected = [kind for outcome in outcomes for kind in outcome.injected]
    return {
        "seed": seed,
        "commit": commit,
        "faults": len(injected),
        "skipped": {kind: why for one in outcomes for kind, why in one.skipped.items()},
        **{verdict: sum(one.count(verdict) for one in outcomes) for verdict in VERDICTS},
        "by_kind": by_kind(outcomes),
        "groups": [_group(outcome) for outcome in outcomes],
    }


def _group(outcome: Outcome) -> dict[str, Any]:
    told = asdict(outcome) | {"findings": [str(one) for one in outcome.findings]}
    return told | {name: round(told[name], 1) for name in ("converged_s", "took_s")}


def by_kind(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Kind → times, failures, cases by verdict, times to converge in seconds."""
    groups: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        for kind in outcome.injected:
            groups[kind].append(outcome)
    return {kind: _of_kind(groups[kind]) for kind in sorted(groups)}


def _of_kind(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    times = [one.converged_s for one in outcomes if not one.findings]
    return {
        "faults": len(outcomes),
        "failed": sum(bool(one.findings) for one in outcomes),
        **{verdict: sum(one.count(verdict) for one in outcomes) for verdict in VERDICTS},
        "ended": sum(len(one.ended) for one in outcomes),
        "converged_median_s": round(statistics.median(times), 1) if times else None,
        "converged_max_s": round(max(times), 1) if times else None,
    }


def table(told: dict[str, Any]) -> str:
    """The summary's kinds as Markdown."""
    head = "| kind | faults | failed | lost | doubled | wrong | median s | longest s |"
    lines = [head, "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for kind, row in told["by_kind"].items():
        names = ("faults", "failed", *VERDICTS, "converged_median_s", "converged_max_s")
        cells = ["–" if row[name] is None else str(row[name]) for name in names]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)
