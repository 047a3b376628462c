"""Loaded by every Python process of a fault run: `time.time` shifted by the seconds in a file.

Only Python's own clock moves, as much as an NTP step would show to the roles' code; Kafka, RocksDB
and the monotonic clock do not.
"""

import os
import time
from pathlib import Path

_file = os.environ.get("FAULTS_CLOCK_SHIFT", "")
_wall, _monotonic = time.time, time.monotonic
_LOOK_EVERY_S = 0.2
_known = [0.0, 0.0]  # the shift, and when it was last looked at


def _shifted() -> float:
    now = _monotonic()
    if now - _known[1] > _LOOK_EVERY_S:
        _known[1] = now
        try:
            _known[0] = float(Path(_file).read_text() or 0)
        except (OSError, ValueError):
            _known[0] = 0.0
    return _wall() + _known[0]


if _file:
    time.time = _shifted
