"""`python -m tests.faults`: inject faults while events flow, and judge."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.driver import Driver
from tests.faults.registry import chosen
from tests.faults.report import summary, table
from tests.faults.schedule import schedule

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every promise was kept, 1 if not, 130 if interrupted."""
    asked = _parser().parse_args(arguments)
    kinds = chosen([one for one in asked.kinds.split(",") if one])
    if asked.list:
        _say("\n".join(f"{kind.name:36} {kind.promise}" for kind in kinds))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it stops everything, as Ctrl-C does
    driver, interrupted = Driver(asked.seed, asked.keep, _say), False
    try:
        driver.run(schedule(kinds, asked.faults, asked.seed))
    except KeyboardInterrupt:
        interrupted = True
    told = summary(driver.outcomes, asked.seed, _commit())
    _report(told, asked.out)
    failed = told["lost"] or told["doubled"] or told["wrong"]
    return INTERRUPTED if interrupted else int(bool(failed))


def _report(told: dict[str, Any], out: Path | None) -> None:
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    _say(f"\n{table(told)}\n\n{told['faults']} faults: {_counts(told)}")


def _counts(told: dict[str, Any]) -> str:
    return ", ".join(f"{told[verdict]} {verdict}" for verdict in ("lost", "doubled", "wrong"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the schedule and all chance")
    parser.add_argument("--faults", type=int, default=100, help="how many")
    parser.add_argument("--kinds", default="", help="names or patterns, with commas; default all")
    parser.add_argument("--list", action="store_true", help="only list the kinds")
    parser.add_argument("--out", type=Path, help="write what was found to this JSON file")
    parser.add_argument("--keep", type=Path, help="copy the logs of failed stacks to this folder")
    return parser


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
