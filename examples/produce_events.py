"""Send an item and what a user did with it to Palate, with aiokafka.

    python examples/produce_events.py [--user anna]

Two things matter to a producer:

1. The key. A record's key is the raw UTF-8 user_id (of an item: item_id), so that all of a user's
   events are in one partition, in order.
2. The partitioner. Palate expects murmur2 of the key, which Kafka's own clients and aiokafka use.
   Clients made on librdkafka (confluent-kafka for Python, Go, .NET; node-rdkafka) hash otherwise
   unless told: set `partitioner=murmur2_random` there.

Keep an event's event_id when you send it again: it then counts once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import uuid
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP", "127.0.0.1:19092")
PREFIX = os.environ.get("PALATE_KAFKA__PREFIX", "")

ITEM = {
    "item_id": "tea-42",
    "title": "Darjeeling first flush, 100 g",
    "brand": "Hillside",
    "categories": ["Groceries", "Tea"],
    "price": 12.5,
}


def event(user: str, kind: str, **more: Any) -> dict[str, Any]:
    """One interaction with ITEM, now. Fields: docs/schemas/interactions.json."""
    return {
        "event_id": str(uuid.uuid4()),
        "user_id": user,
        "item_id": ITEM["item_id"],
        "type": kind,
        "timestamp": datetime.now(UTC).isoformat(),
        **more,
    }


async def send(producer: AIOKafkaProducer, topic: str, key: str, value: dict[str, Any]) -> None:
    """Send one message and wait until the cluster has it."""
    sent = await producer.send_and_wait(
        PREFIX + topic, json.dumps(value).encode(), key=key.encode()
    )
    print(f"{sent.topic} partition {sent.partition} offset {sent.offset}: {value}")


async def main(user: str) -> None:
    """One item, then a view, a cart and a purchase of it."""
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        await send(producer, "items", ITEM["item_id"], ITEM)
        for did in (
            event(user, "view"),
            event(user, "cart", quantity=2),
            event(user, "purchase", quantity=2, price=12.5, session_id="visit-1"),
        ):
            await send(producer, "interactions", user, did)
    finally:
        await producer.stop()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Send an item and three events.")
    arguments.add_argument("--user", default="anna", help="Who did it.")
    asyncio.run(main(arguments.parse_args().user))
