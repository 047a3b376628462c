"""Processes that are killed, suspended, doubled, or told to end at a bad moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from random import Random

from tests.faults.registry import Faulty, fault
from tests.faults.system import System

LEAST_ASLEEP_S, MOST_ASLEEP_S = 8.0, 12.0  # beyond the session timeout of 6 s
DRAIN_S = 30.0  # as `palate down` waits
TRACKERS = ("tracker-0", "tracker-1")


def _killed(name: str) -> Callable[[System, Random], Faulty]:
    def kill(system: System, chance: Random) -> Faulty:
        system.kill(name)
        yield chance.uniform(0.0, 2.0)

    kill.__name__ = f"{name}_killed".replace("-0", "")
    return kill


for _name in (*TRACKERS[:1], "profiler", "indexer", "recorder"):
    fault("kill -9: started again, it has lost nothing")(_killed(_name))


def _suspended(name: str) -> Callable[[System, Random], Faulty]:
    def suspend(system: System, chance: Random) -> Faulty:
        system.suspend(name)
        yield chance.uniform(LEAST_ASLEEP_S, MOST_ASLEEP_S)
        system.resume(name)

    suspend.__name__ = f"{name}_suspended"
    return suspend


for _name in ("profiler", "indexer", "recorder"):
    fault("asleep beyond its session, it wakes up and does no harm")(_suspended(_name))


@fault("a worker whose session has expired writes nothing, anywhere", alone=True, weight=10)
def tracker_suspended(system: System, chance: Random) -> Faulty:
    """The survivor goes on with all partitions; the sleeper wakes up with records of its own."""
    name = chance.choice(TRACKERS)
    system.suspend(name)
    yield chance.uniform(LEAST_ASLEEP_S, MOST_ASLEEP_S)
    system.resume(name)
    yield 4.0


@fault("recovery is right, whoever wrote", alone=True, weight=10)
def tracker_suspended_survivor_killed(system: System, chance: Random) -> Faulty:
    """The sleeper has just woken up when it gets everything back from the changelog."""
    name, survivor = chance.sample(TRACKERS, 2)
    system.suspend(name)
    yield chance.uniform(LEAST_ASLEEP_S, MOST_ASLEEP_S)
    system.resume(name)
    yield 3.0
    system.kill(survivor)
    yield 8.0


@fault("nothing is lost, whoever comes and goes", alone=True)
def storm(system: System, chance: Random) -> Faulty:
    """Kills, terminations and joins of two or three workers."""
    workers = [*TRACKERS, "tracker-2"]
    for _ in range(6):
        name = chance.choice(workers)
        if system.process(name) is None:
            system.start(name)
        else:
            chance.choice((system.kill, system.terminate))(name)
        yield chance.uniform(0.5, 3.0)
    system.terminate("tracker-2")
    system.waited(lambda: system.process("tracker-2") is None, DRAIN_S)
    system.kill("tracker-2")


@fault("a drain has an end: both have ended within 30 s", alone=True)
def two_terminated(system: System, chance: Random) -> Faulty:
    """SIGTERM to both workers at once."""
    system.terminate(*TRACKERS)
    ended = system.waited(lambda: not any(map(system.process, TRACKERS)), DRAIN_S)
    left = [name for name in TRACKERS if system.process(name)]
    system.require(ended, "both trackers have ended within 30 s of SIGTERM", f"left: {left}")
    system.kill(*TRACKERS)
    yield 0.0


@fault("a recovery may be cut short anywhere")
def terminated_in_recovery(system: System, chance: Random) -> Faulty:
    """The state folder is gone; SIGTERM while the changelog is being read."""
    name = chance.choice(TRACKERS)
    system.kill(name)
    shutil.rmtree(system.settings.data_dir / "state" / name.replace("tracker", "worker"))
    system.start(name)
    yield chance.uniform(1.5, 6.0)
    system.terminate(name)
    if not system.waited(lambda: system.process(name) is None, DRAIN_S):
        system.require(False, "a tracker told to end in its recovery ends within 30 s", name)
        system.kill(name)


@fault("the first goes on (that the second refuses: tests/integration/test_partitions.py)")
def two_trackers_on_one_state_folder(system: System, chance: Random) -> Faulty:
    """Another tracker with the number of one that runs."""
    port = str(system.settings.metrics.tracker_port + 7)
    second = system.spawn(
        "-m",
        "streams.tracker",
        PALATE_WORKER="0",
        PALATE_METRICS__TRACKER_PORT=port,
    )
    yield 10.0
    if second.poll() is None:
        second.terminate()
    system.waited(lambda: second.poll() is not None, DRAIN_S)
    if second.poll() is None:
        second.kill()


@fault("one process of each role runs")
def two_ups_at_once(system: System, chance: Random) -> Faulty:
    """Everything but Kafka is dead, and two operators type `palate up`."""
    names = [role.name for role in system.stack.roles]
    system.kill(*names)
    ups = [system.spawn("-m", "deploy", "up") for _ in range(2)]
    yield 0.0
    system.waited(lambda: all(one.poll() is not None for one in ups), 120.0)
    codes = [one.poll() for one in ups]
    system.require(0 in codes, "one of two `palate up` at once succeeds", f"exit codes {codes}")
    # Those that they started do not go through the proxies: they give way to some that do.
    system.terminate(*names)
    system.waited(lambda: not any(map(system.process, names)), DRAIN_S)
    system.kill(*names)
