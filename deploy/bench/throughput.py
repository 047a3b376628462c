"""Events per second of the tracker, beside Faust, aiokafka and Quix Streams."""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

from deploy.bench.bench_broker import Ground
from deploy.bench.catalogue import item_ids
from deploy.bench.race import Contestant, RaceResult, race
from deploy.bench.rows import Figure, at_least, median_row

TRACKER: Final = "deploy.bench.contestants.tracker"
FAUST: Final = "deploy.bench.contestants.faust_agent"
BUDGET: Final[dict[str, Any]] = {"calls_per_minute": 600.0, "burst_calls": 100.0}
NEVER_BEHIND: Final = 10**9
ContestantRuns = dict[str, list[RaceResult]]

REQUESTING: Final = "tracker, all its work with requests, 1 worker"
PER_EVENT: Final = "Faust agent, a write and a message per event, 1 worker"
BATCHED: Final = "Faust agent, a write and a message per user and batch, 1 worker"


def contestants() -> list[Contestant]:
    """Everything that races, tracker first."""
    asking = {"trigger": {**BUDGET, "catch_up_lag": NEVER_BEHIND}}
    all_work = (
        "parse, check, deduplicate, windows, trigger, state in RocksDB and changelog "
        "(acknowledged), requests at 10/s while events are applied; no catalogue, so no lists"
    )
    shipped = "as shipped: further behind than 5,000 records it applies and does not send"
    found = [
        Contestant(REQUESTING, TRACKER, settings=asking, note=all_work),
        Contestant(BATCHED, FAUST, ("batch",), note="noack_take(2000), uvloop, RocksDB, no logs"),
        Contestant(PER_EVENT, FAUST, ("each",), note="uvloop, RocksDB, no logs"),
        Contestant("tracker, catching up, 1 worker", TRACKER, note=shipped),
        Contestant(
            "bare aiokafka loop, 1 worker",
            "deploy.bench.contestants.aiokafka_loop",
            note="counts in memory only, a message per user and batch",
        ),
        Contestant(
            "tracker, all its work with requests, 2 workers", TRACKER, (), 2, asking, all_work
        ),
        Contestant(
            "Faust agent, a write and a message per user and batch, 2 workers",
            *(FAUST, ("batch",), 2),
        ),
        Contestant("Faust agent, a write and a message per event, 2 workers", FAUST, ("each",), 2),
    ]
    if find_spec("quixstreams"):
        note = "count with state (RocksDB and changelog), a message per event"
        quix = "deploy.bench.contestants.quix"
        found.insert(5, Contestant("Quix Streams, 1 worker", quix, note=note))
        found.append(Contestant("Quix Streams, 2 workers", quix, (), 2, note=note))
    return found


def throughput(ground: Ground) -> list[Figure]:
    """60,000 events of 1,000 users over 4 partitions; contestants take turns."""
    count = 6_000 if ground.quick else 60_000
    runs: ContestantRuns = defaultdict(list)
    racing = contestants()
    for _ in range(ground.runs):
        for contestant in racing:
            runs[contestant.name].append(asyncio.run(race(ground, contestant, count, item_ids())))
    return [*_ratios(runs), *(_row(one, runs[one.name]) for one in racing)]


def _row(contestant: Contestant, runs: Sequence[RaceResult]) -> Figure:
    cpu = statistics.median(run.cpu_us for run in runs)
    note = f"{cpu:.0f} µs of processor time per event; {contestant.note}".removesuffix("; ")
    return median_row(contestant.name, [run.per_second for run in runs], "events/s", note)


def _ratios(runs: ContestantRuns) -> list[Figure]:
    """Of medians, not of single runs: a slow moment of the machine hits one run only."""
    return [
        at_least("tracker / batched Faust agent", *_ratio(runs, BATCHED, 0.8)),
        at_least("tracker / per-event Faust agent", *_ratio(runs, PER_EVENT, 2.0)),
    ]


def _ratio(runs: ContestantRuns, against: str, least: float) -> tuple[list[float], float, str, str]:
    def median(name: str, field: str) -> float:
        return statistics.median(getattr(run, field) for run in runs[name])

    speed = median(REQUESTING, "per_second") / median(against, "per_second")
    cpu = median(against, "cpu_us") / median(REQUESTING, "cpu_us")
    return [speed], least, "×", f"by processor time per event {cpu:.2f} ×"
