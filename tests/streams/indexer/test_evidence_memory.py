"""Counting what users had together takes the memory of its setting, however large the log is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streams.event_log import SegmentLog
from streams.event_log.columns import SCHEMAS
from tests.streams.logged import NOW

LIMIT_MB = 64
FEW, MANY = 20_000, 1_020_000
AS_OBJECTS = 200  # bytes: the least that a row takes as a Python tuple with its four values

PEAK = """
import sys
from pathlib import Path
from models.settings import WindowSettings
from streams.indexer.evidence import read_evidence
folder = Path(sys.argv[1])
found = read_evidence(folder / "log", WindowSettings(), folder, int(sys.argv[2]))
status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory too
print(len(found.users), int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


def logged(folder: Path, rows: int) -> Path:
    """Every user has had 20 of 5,000 items."""
    log, chance = SegmentLog(folder / "log"), np.random.default_rng(7)
    number = np.arange(rows)
    columns = {
        "offset": number,
        "partition": np.zeros(rows, "i4"),
        "status": np.full(rows, "ok"),
        "event_id": number.astype(str),
        "user_id": (number // 20).astype(str),
        "item_id": chance.integers(0, 5_000, rows).astype(str),
        "type": np.full(rows, "purchase"),
        "timestamp": NOW + number,
    }
    schema = SCHEMAS["interactions"]
    arrays = [pa.array(columns.get(f.name, [None] * rows), type=f.type) for f in schema]
    log.append_from("interactions", 0, 0, pa.Table.from_arrays(arrays, schema=schema))
    return folder


def pairs_and_peak(folder: Path) -> tuple[int, int]:
    command = [sys.executable, "-c", PEAK, str(folder), str(LIMIT_MB)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    pairs, peak = done.stdout.split()
    return int(pairs), int(peak)


@pytest.mark.service
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_log_fifty_times_as_large_is_counted_within_the_same_memory(tmp_path: Path) -> None:
    few, least = pairs_and_peak(logged(tmp_path / "few", FEW))
    many, most = pairs_and_peak(logged(tmp_path / "many", MANY))

    assert many > 40 * few
    assert most - least < LIMIT_MB * 2**20 + (many - few) * AS_OBJECTS / 2
