"""Bytes that no decoder expects, on every topic."""

from __future__ import annotations

import asyncio
import json
from random import Random

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.kafka.topics import TOPICS
from tests.faults.registry import Faulty, fault
from tests.faults.system import System

LARGE, TOO_LARGE = 10 * 2**20, 20 * 2**20  # bytes; Kafka is told to take at most 12 MiB
NUMBERS = ("1e400", "Infinity", "-Infinity", "NaN", "1e308", str(2**63), str(-(2**80)), "0.1e-400")
TEXTS = ('"\\ud800"', '"\\u0000"', '""', "[]", "{}", "null", '"' + "x" * 5_000 + '"')
FIELDS = {
    "interactions": "event_id user_id item_id type timestamp rating quantity",
    "items": "item_id title price categories available",
    "profile-requests": "request_id user_id number as_of applied_offset partition windows",
    "profiles": "profile_id user_id version as_of sections text release vector applied_offset",
    "recommendations": "recommendation_id user_id as_of trigger applied_offset release items",
    "profile-edits": "edit_id user_id action text section timestamp",
    "dead-letters": "user_id",
    "releases": "release status at by",
}


@fault("no bytes stop a role")
def poison(system: System, chance: Random) -> Faulty:
    """Random bytes, absurd numbers, deep nesting, wrong shapes; of strangers, under any key."""
    records = [
        (topic, poisonous(topic, chance)) for topic in TOPICS for _ in range(chance.randrange(3, 9))
    ]
    system.loop.call(_send(system, records))
    yield 3.0


def poisonous(topic: str, chance: Random) -> bytes | None:
    """A value that is no message of this topic."""
    shape = chance.randrange(5)
    if shape == 0:
        return chance.randbytes(chance.randrange(1, 400))
    if shape == 1:
        return b"[" * 20_000
    if shape == 2 and topic != "items":
        return None
    if shape == 3:
        return json.dumps({"user_id": "stranger", "deep": [[[[]]]]}).encode()
    fields = FIELDS.get(topic, "user_id").split()
    values = [f'"{name}": {chance.choice((*NUMBERS, *TEXTS))}' for name in fields]
    return ("{" + ", ".join(values) + "}").encode()


@fault("a message that is too large is refused, a large one is a dead letter")
def large_message(system: System, chance: Random) -> Faulty:
    """20 MB, which Kafka refuses, and 10 MB, which it takes."""
    values: list[tuple[str, bytes | None]] = [
        ("interactions", b"x" * size) for size in (TOO_LARGE, LARGE)
    ]
    system.loop.call(_send(system, values))
    yield 2.0


async def _send(system: System, records: list[tuple[str, bytes | None]]) -> None:
    """What Kafka refuses is no concern of ours."""
    producer = AIOKafkaProducer(
        bootstrap_servers=system.settings.kafka.bootstrap, max_request_size=2 * TOO_LARGE
    )
    await producer.start()
    try:
        sending = [
            await producer.send(system.settings.topic(topic), value, b"stranger")
            for topic, value in records
        ]
        for outcome in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, KafkaError):
                raise outcome
    finally:
        await producer.stop()
