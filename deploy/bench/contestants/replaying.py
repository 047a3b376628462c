"""Replays a log once, on one core, and says how fast and with how much memory.

    python -m deploy.bench.contestants.replaying sessions|histories LOG_FOLDER

`sessions`: as training does, with two passes, borders, sessions and training events.
`histories`: as a rebuild of state does, decoding every message and folding event by event.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.settings import Settings, load_settings
from streams.event_log import SegmentLog
from streams.replay import replay_histories
from trainer.data.corpus import Corpus


def main() -> None:
    """Print one JSON object."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    settings, log = load_settings(), SegmentLog(folder)
    before = peak_mib()
    started, processor = time.monotonic(), time.process_time()
    counts = (_sessions if what == "sessions" else _histories)(log, settings)
    print(
        json.dumps(
            {
                **counts,
                "wall_s": time.monotonic() - started,
                "processor_s": time.process_time() - processor,
                "start_mib": before,
                "peak_mib": peak_mib(),
            }
        )
    )


def peak_mib() -> float:
    """Most memory held so far; not by getrusage, which counts what the starting process held."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def _sessions(log: SegmentLog, settings: Settings) -> dict[str, Any]:
    corpus = Corpus.from_log(log, settings)
    return {"events": corpus.counts["events"], "sessions": len(corpus.sessions.train)}


def _histories(log: SegmentLog, settings: Settings) -> dict[str, Any]:
    users = sum(
        1
        for partition in log.partitions("interactions")
        for _ in replay_histories(log, settings, partition)
    )
    events = sum(log.next_offset("interactions", n) for n in log.partitions("interactions"))
    return {"events": events, "users": users}


if __name__ == "__main__":
    main()
