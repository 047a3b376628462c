"""How far another process is, read without asking it: two numbers in a shared file."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import Final, NamedTuple

_FORMAT: Final = struct.Struct("=qqq")


class ProgressCount(NamedTuple):
    """A worker's own count of records it is done with, and when it last grew."""

    records: int = 0
    at_ns: int = 0  # time.monotonic_ns, the same clock in all processes of a machine
    position: int = 0  # sum of next offsets over its partitions, where the worker knows it


class WorkerProgress:
    """Written by one worker, read by the benchmark."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_FORMAT.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _FORMAT.size)
        self._records = 0

    def add(self, records: int, position: int = 0) -> None:
        """`records` more are done."""
        self._records += records
        _FORMAT.pack_into(self._memory, 0, self._records, time.monotonic_ns(), position)

    def read(self) -> ProgressCount:
        """What the worker has reached."""
        return ProgressCount(*_FORMAT.unpack_from(self._memory))
