"""Kafka itself: killed, asleep, cut off, a topic made anew."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from random import Random

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete

from models.errors import PalateError
from tests.faults.evidence import logged_values
from tests.faults.flow import Flow
from tests.faults.kinds.processes import TRACKERS
from tests.faults.ledger import Ledger
from tests.faults.proxy import Line
from tests.faults.registry import Faulty, fault
from tests.faults.system import System
from tests.faults.traffic import Traffic

REFUSED_WITHIN_S = 60.0
SAID = re.compile("deleted and made (again|anew)|records of another topic")
REACTS_S = 10.0  # after which whoever watches its topics has seen that one is another
MORE = 700  # records of the new topic beyond those of the old


@fault("kill -9 of the broker: what it acknowledged is there")
def kafka_killed(system: System, chance: Random) -> Faulty:
    """Without a word to anybody."""
    system.kill("kafka")
    yield chance.uniform(0.0, 3.0)


@fault("the roles wait for a broker that says nothing")
def kafka_suspended(system: System, chance: Random) -> Faulty:
    """Connections stay open and silent, beyond every session."""
    system.suspend("kafka")
    yield chance.uniform(8.0, 12.0)
    system.resume("kafka")


@fault("the roles wait for a broker, however long", alone=True)
def kafka_suspended_for_long(system: System, chance: Random) -> Faulty:
    """Beyond the 40 s that a client gives a request."""
    system.suspend("kafka")
    yield chance.uniform(45.0, 55.0)
    system.resume("kafka")


def _cut(name: str) -> Callable[[System, Random], Faulty]:
    def cut(system: System, chance: Random) -> Faulty:
        role = chance.choice(TRACKERS) if name == "tracker" else name
        system.line(role, "silent")
        yield chance.uniform(8.0, 12.0)
        system.line(role, "open" if chance.random() < 0.5 else "refused")
        yield 1.0
        system.line(role, "open")

    cut.__name__ = f"{name}_cut_off"
    return cut


for _name in ("profiler", "indexer", "recorder"):
    fault("cut off from the broker, it waits and goes on")(_cut(_name))
fault("cut off, its session expired: it writes nothing late", alone=True, weight=2)(_cut("tracker"))


@fault("cut off all at once, everybody waits and goes on")
def all_cut_off(system: System, chance: Random) -> Faulty:
    """The network of the broker's machine is away."""
    names = [role.name for role in system.stack.roles]
    state: Line = "silent" if chance.random() < 0.5 else "refused"
    for name in names:
        system.line(name, state)
    yield chance.uniform(8.0, 12.0)
    for name in names:
        system.line(name, "open")


ANEW = "a topic made anew is refused, or its events are recorded; never left out"


@fault(ANEW, alone=True)
def topic_made_anew(system: System, chance: Random) -> Faulty:
    """Deleted and made again with more records than before, while nothing runs."""
    yield from _with_another_topic(system, chance, running=False)


@fault(ANEW, alone=True)
def topic_made_anew_while_running(system: System, chance: Random) -> Faulty:
    """The same under the eyes of all roles."""
    yield from _with_another_topic(system, chance, running=True)


def _with_another_topic(system: System, chance: Random, running: bool) -> Faulty:
    """Afterwards all is put back as it was: the operator restores a backup."""
    system.flow.pause()
    system.down()
    backup = system.base / "backup"
    shutil.copytree(system.settings.data_dir, backup)
    try:
        if running:
            system.up()
        new = _make_anew(system, chance)
        yield REACTS_S if running else 0.0
        _require_refusal(system, new)
    finally:
        system.down()
        _put_back(system, backup)
    system.flow.start()


def _make_anew(system: System, chance: Random) -> Ledger:
    system.stack.start_broker(lambda _part, _what: None)
    system.loop.call(_recreate(system))
    number = len(system.flow.ledger.snapshot()) + MORE
    kafka = system.settings.kafka
    stranger = Traffic(chance.randrange(10**6))
    flow = Flow(system.loop, kafka.bootstrap, kafka.prefix, stranger, 1)
    flow.send(stranger.event(chance.choice(stranger.users)) for _ in range(number))
    flow.stop()
    return flow.ledger


async def _recreate(system: System) -> None:
    topic = system.settings.topic("interactions")
    admin = AIOKafkaAdminClient(bootstrap_servers=system.settings.kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        while topic in await admin.list_topics():
            await asyncio.sleep(0.2)
        config = {
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(12 * 2**20),
            "retention.ms": str(30 * 86_400_000),
        }
        new = NewTopic(topic, system.settings.kafka.partitions, 1, topic_configs=config)
        await admin.create_topics([new])
        await asyncio.sleep(1.0)
    finally:
        await admin.close()


def _require_refusal(system: System, new: Ledger) -> None:
    """Loud: a role says what has happened and serves nothing; or else all of it is recorded."""
    try:
        system.up_once(within_s=REFUSED_WITHIN_S)
    except PalateError as error:
        told = "".join(system.log_of(name)[-20_000:] for name in ("recorder", *TRACKERS))
        why = "the refusal says that the topic was made anew"
        system.require(SAID.search(f"{error}{told}"), why, str(error))
        return
    acknowledged = {(e.partition, e.offset): e.value for e in new.snapshot()}

    def missing() -> int:
        rows = logged_values(system.settings.log_dir, "interactions")
        return sum(
            rows.get(("interactions", partition), {}).get(offset) != value
            for (partition, offset), value in acknowledged.items()
        )

    whole = system.waited(lambda: not missing(), 10.0)
    why, detail = (
        "all ready, and events of a topic made anew not in the log",
        f"of {len(acknowledged)}",
    )
    system.require(whole, why, detail, "lost", missing())


def _put_back(system: System, backup: object) -> None:
    """The operator restores the backup."""
    data = system.settings.data_dir
    for path in data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(str(backup), data, dirs_exist_ok=True)
    shutil.rmtree(str(backup))


async def expire(system: System, partition: int, before: int) -> None:
    """What retention does: records of `interactions` before this offset are gone from Kafka."""
    admin = AIOKafkaAdminClient(bootstrap_servers=system.settings.kafka.bootstrap)
    await admin.start()
    try:
        place = TopicPartition(system.settings.topic("interactions"), partition)
        await admin.delete_records({place: RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()
