"""When training runs: one at a time on a data_dir, once or again and again."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from models.errors import PalateError, SettingsError, TrainingError

log = logging.getLogger(__name__)

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds_of(text: str) -> float:
    """`90s`, `30m`, `24h` or `7d` in seconds. Raises SettingsError on anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None or not float(found[1]):
        raise SettingsError(f"{text!r} is no interval; write for example 30m, 24h or 7d")
    return float(found[1]) * _SECONDS[found[2]]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends.

    Raises TrainingError if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise TrainingError(
            f"another training runs on {folder} (its lock is held); wait for it to end"
        ) from error
    try:
        yield
    finally:
        lock.release()


def repeat(job: Callable[[], object], every_s: float, stop: threading.Event) -> None:
    """Run `job` now and then every `every_s` seconds from start to start, until `stop`.

    A job that takes longer than the interval is followed by the next at once. One that fails,
    for whatever reason, is logged, and the next one comes in its time.
    """
    while not stop.is_set():
        started = time.monotonic()
        try:
            job()
        except Exception as error:
            known = isinstance(error, PalateError)  # it says all; others need their traceback
            said = "training failed, the next run is %.0f s after its start: %s"
            log.error(said, every_s, error, exc_info=not known)
        stop.wait(max(0.0, started + every_s - time.monotonic()))
