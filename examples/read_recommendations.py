"""Read Palate's recommendations as they come, with aiokafka.

    python examples/read_recommendations.py [--user anna] [--from-beginning] [--count 1]

Delivery is at least once: keep the first record of a recommendation_id, as done here. A user's
newest list is the one with the greatest applied_offset, not the one with the latest clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP", "127.0.0.1:19092")
TOPIC = os.environ.get("PALATE_KAFKA__PREFIX", "") + "recommendations"


async def recommendations(from_beginning: bool) -> AsyncIterator[dict[str, Any]]:
    """Each recommendation once. Fields: docs/schemas/recommendations.json."""
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=BOOTSTRAP,
        auto_offset_reset="earliest" if from_beginning else "latest",
        isolation_level="read_committed",
    )
    await consumer.start()
    seen: set[str] = set()  # a long-running reader would keep these per user, or in its database
    try:
        async for record in consumer:
            if record.value is None:  # the user was forgotten
                continue
            made = json.loads(record.value)
            if made["recommendation_id"] not in seen:
                seen.add(made["recommendation_id"])
                yield made
    finally:
        await consumer.stop()


def show(made: dict[str, Any]) -> None:
    """A list for people."""
    print(f"For {made['user_id']} ({made['trigger']}, release {made['release']}):", flush=True)
    for item in made["items"]:
        reason = item["reason"]
        print(f"{item['rank']:3}. {item['item_id']:12} {item['score']:.3f}  {reason['text']}")


async def main(user: str | None, from_beginning: bool, count: int | None) -> None:
    """Print recommendations until `count` are printed."""
    shown = 0
    async for made in recommendations(from_beginning):
        if user in (None, made["user_id"]):
            show(made)
            shown += 1
        if shown == count:
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print recommendations as they come.")
    parser.add_argument("--user", help="Only for this user.")
    parser.add_argument("--from-beginning", action="store_true", help="Those made before too.")
    parser.add_argument("--count", type=int, help="Stop after so many.")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.user, chosen.from_beginning, chosen.count))
