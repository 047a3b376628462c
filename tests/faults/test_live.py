"""Twenty faults on a stack of its own, drawn from a seed: what CI sees of `make faults`."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.faults.driver import Driver
from tests.faults.registry import chosen
from tests.faults.report import summary
from tests.faults.schedule import schedule

pytestmark = [
    pytest.mark.model,  # its roles load torch, and it runs for minutes
    pytest.mark.skipif("KAFKA_BOOTSTRAP" in os.environ, reason="kills its own broker"),
]
# Each kind may come once; this seed's twenty have both suspensions of a tracker among them.
SEED, FAULTS = 1987, 20


def leftovers() -> list[str]:
    """Processes of a stack that still run."""
    found = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            if process.environ().get("FAULTS_RUN") == str(os.getpid()):
                found.append(process.info["name"])
    return found


def test_after_twenty_faults_nothing_is_lost_doubled_or_wrong(tmp_path: Path) -> None:
    kinds = [replace(kind, weight=1) for kind in chosen([])]
    groups = schedule(kinds, FAULTS, SEED)
    told = summary(Driver(SEED, keep=None, say=print).run(groups), SEED, "")
    assert sum(len(group["kinds"]) for group in told["groups"]) == FAULTS
    assert leftovers() == []
    failed = [group["findings"] for group in told["groups"] if group["findings"]]
    assert failed == []
