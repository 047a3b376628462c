"""`palate bench`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.console import JsonOption, print_json, terminal
from deploy.interruption import stopped_by_signals
from models.errors import SettingsError

if TYPE_CHECKING:
    from deploy.bench.rows import Figure

FOLDER = Path("docs/benchmarks")
NAMES = (
    *("throughput", "changelog", "latency", "switch", "recovery", "recording"),
    *("memory", "replay", "profiles", "profiles-vllm", "training", "rollouts-vllm"),
)


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Measure only this; may be repeated. One of {', '.join(NAMES)}."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes, one run; nothing is stored.")
    ] = False,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each; the median counts.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Measure speed, latency, state, recovery and memory, beside alternatives on this machine.

    Takes about an hour; a broker of its own runs meanwhile. Results go to docs/benchmarks/.

    Example: palate bench --only throughput --only latency
    """
    from deploy.bench import report
    from deploy.bench.bench_broker import ground

    names = _chosen(only)
    stopped_by_signals()
    measured = {}
    with ground(quick=quick, runs=runs) as where:
        for name in names:
            measured[name] = _measure(name, where)
            if not quick:
                report.store(out, time.strftime("%Y-%m-%d"), {name: measured[name]})
            if not as_json:
                _show(name, measured[name])
    if as_json:
        print_json(measured)


def _chosen(only: list[str] | None) -> list[str]:
    unknown = sorted(set(only or ()) - set(NAMES))
    if unknown:
        raise SettingsError(f"no benchmark is called {', '.join(unknown)}; {', '.join(NAMES)} are")
    return [name for name in NAMES if not only or name in only]


def _measure(name: str, where: Any) -> dict[str, Any]:
    from importlib import import_module

    from deploy.bench import load, machine, report

    function = name.replace("-", "_")
    measure = getattr(import_module(f"deploy.bench.{function.partition('_')[0]}"), function)
    about, started = machine.describe(), time.monotonic()
    rows: list[Figure] = measure(where)
    return report.result(
        rows,
        what=(measure.__doc__ or "").strip(),
        command=f"palate bench --only {name}",
        seed=load.SEED,
        at=time.strftime("%Y-%m-%d %H:%M"),
        took_s=round(time.monotonic() - started),
        machine=about,
    )


def _show(name: str, found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("figure", "value", "aim", "met", "notes", title=name, title_justify="left")
    for row in found["rows"]:
        met = {True: "[green]yes", False: "[red]no", None: ""}[row["met"]]
        value = f"{row['value']:,g} {row['unit']}"
        table.add_row(row["name"], value, row["aim"], met, row["note"])
    terminal().print(table)
