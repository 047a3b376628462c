"""Results as files: one JSON per day, and a page with the newest of each benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from deploy.bench.rows import Figure
from models.durable import replacing

QUIET = 0.1  # share of the processors; the broker at rest takes some hundredths
HEAD = """# Benchmarks

Made by `make bench` (`palate bench --only NAME` measures one anew); `*.json` beside this page hold
every single run. Contestants take turns on one machine and a broker of their own. A figure is the
median of as many runs as its line says; a ratio of medians counts as one. What misses its aim stays
here with the reason.
"""


def store(folder: Path, day: str, measured: dict[str, Any]) -> Path:
    """Put benchmarks (name → result) into the day's file, in place of earlier ones; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{day}.json"
    known = orjson.loads(path.read_bytes()) if path.exists() else {}
    with replacing(path) as draft:
        draft.write_bytes(orjson.dumps(known | measured, option=orjson.OPT_INDENT_2) + b"\n")
    with replacing(folder / "README.md") as draft:
        draft.write_text(page(newest(folder)))
    return path


def result(rows: Sequence[Figure], **about: Any) -> dict[str, Any]:
    """One benchmark's entry."""
    return {**about, "rows": [asdict(row) for row in rows]}


def newest(folder: Path) -> dict[str, Any]:
    """The newest result of each benchmark in a folder."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        found |= orjson.loads(path.read_bytes())
    return found


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    return "\n".join([HEAD, *(line for name in results for line in _section(name, results[name]))])


def _section(name: str, found: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}\n\n{found['what']}\n"
    yield "| figure | value | runs | aim | met | notes |"
    yield "|---|---:|---:|---|---|---|"
    for row in found["rows"]:
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        value = f"{row['value']:,g} {row['unit']}"
        cells = (row["name"], value, len(row["runs"]) or 1, row["aim"], met, row["note"])
        yield f"| {' | '.join(map(str, cells))} |"
    yield f"\n{_about(found)}\n"


def _about(found: dict[str, Any]) -> str:
    machine = found["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"`{found['command']}`, seed {found['seed']}, {found['at']}, commit {machine['commit']}. "
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['busy_before']:.0%} busy before; {machine['system']}, "
        f"Python {machine['python']}, {machine['java']}, Kafka {machine['kafka']}, "
        f"{packages}.{_others(machine)}"
    )


def _others(machine: dict[str, Any]) -> str:
    """A reason for what misses its aim: other work on the machine."""
    if machine["busy_before"] <= QUIET:
        return ""
    return (
        " **Other work kept this machine busy: rates are lower and latencies higher than it would "
        "give alone.**"
    )
