"""docs/metrics.md, made from the declarations in streams/metrics.py."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry

from streams.metrics import DECLARED, Declared

HEAD = """# Metrics

Each role serves Prometheus metrics at `/metrics`. `/healthz` answers `200` while its event loop
turns: for a liveness probe. `/readyz` answers `200` while work is being done (Kafka answers, and
what is read moves or there is nothing to read), else `503` with the reason: for a readiness probe.
Addresses are settings: `PALATE_METRICS__TRACKER_PORT` and so on; tracker worker *n* listens *n*
ports higher.

The trainer is a job: it pushes its metrics to a Pushgateway (`PALATE_TRAIN__PUSHGATEWAY`) and
writes them to a file for the node exporter's textfile collector (`PALATE_TRAIN__METRICS_FILE`).

Histograms have `_bucket`, `_sum` and `_count` as usual. Every role also has the client library's
`process_…` metrics (memory, CPU, open files). Times are wall time unless event time is named.

This page is made by `make docs`.
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for role, declare in DECLARED.items():
        metrics = declare(CollectorRegistry())
        parts += [f"\n## {role}\n\n{declare.__doc__}\n", *_table(metrics.declared)]
    return "\n".join(parts) + "\n"


def _table(declared: list[Declared]) -> Iterator[str]:
    yield "| metric | type | labels | meaning |"
    yield "|---|---|---|---|"
    for metric in declared:
        labels = " ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"
