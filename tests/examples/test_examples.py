"""The examples do what they say, with the real broker and Kafka's own console producer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.kafka_jars import jars
from models.schemas import Interaction, Item, Reason, ReasonKind, Recommendation, RecommendedItem
from models.settings import Settings
from streams.codec import decode_interaction
from streams.kafka.clients import producer
from streams.kafka.topics import ensure_topics
from tests.conftest import MakeSettings
from tests.records import records

pytestmark = pytest.mark.service

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    """Settings whose topics exist."""
    made = make_settings()
    asyncio.run(ensure_topics(made))
    return made


def run(settings: Settings, *command: str | Path) -> str:
    """What an example prints."""
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP": settings.kafka.bootstrap,
        "PALATE_KAFKA__PREFIX": settings.kafka.prefix,
        "PALATE_KAFKA__BROKER_JARS": str(settings.kafka.broker_jars),
    }
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def accepted(settings: Settings) -> list[Interaction]:
    """The interactions in the topic, each as the tracker decodes it."""
    tolerance = int(settings.windows.future_tolerance_s * 1000)
    found = [
        decode_interaction(record, settings.kafka.partitions, tolerance)
        for record in records(settings, "interactions")
    ]
    assert all(isinstance(event, Interaction) for event in found), found
    return [event for event in found if isinstance(event, Interaction)]


def test_the_python_producer_sends_what_the_tracker_accepts(settings: Settings) -> None:
    run(settings, sys.executable, "examples/produce_events.py", "--user", "zoë")

    (item,) = records(settings, "items")
    events = accepted(settings)
    assert item.key == Item.model_validate_json(item.value).item_id.encode()
    assert [event.type for event in events] == ["view", "cart", "purchase"]
    assert {event.user_id for event in events} == {"zoë"}


def test_kafkas_console_producer_sends_what_the_tracker_accepts(
    settings: Settings, tmp_path: Path
) -> None:
    jars(settings)
    users = ("anna", "björn", "user 17", "0")
    lines = tmp_path / "events.txt"
    lines.write_text(
        "".join(
            f'{user}\t{{"event_id": "e-{user}", "user_id": "{user}", "item_id": "85123A", '
            '"type": "click", "timestamp": "2011-11-01T10:00:00Z"}\n'
            for user in users
        )
    )

    run(settings, "examples/produce_with_console.sh")
    run(settings, "examples/produce_with_console.sh", lines)

    events = accepted(settings)
    assert len(events) == 2 + len(users)
    assert {event.user_id for event in events} == set(users)


def recommendation(number: int) -> Recommendation:
    reason = Reason(kind=ReasonKind.RECENT, text="you bought a WHITE HANGING HEART")
    line = RecommendedItem(
        item_id="85123A", rank=1, score=0.5, parts={"recent": 0.5}, reason=reason
    )
    return Recommendation(
        recommendation_id=f"r{number}",
        user_id=f"u{number}",
        as_of=1_322_000_000_000,
        trigger="event",
        applied_offset=number,
        release="base-0",
        items=(line,),
        created_at=1_322_000_000_000,
    )


def test_the_reader_shows_each_recommendation_once(settings: Settings) -> None:
    async def publish() -> None:
        sender = producer(settings)
        await sender.start()
        try:
            for number in (1, 1, 2):
                made = recommendation(number)
                topic = settings.topic("recommendations")
                await sender.send_and_wait(topic, made.to_json(), made.user_id.encode())
            await sender.send_and_wait(topic, None, b"u3")
        finally:
            await sender.stop()

    asyncio.run(publish())
    reader = (sys.executable, "examples/read_recommendations.py", "--from-beginning", "--count")

    everyone = run(settings, *reader, "2")
    one = run(settings, *reader, "1", "--user", "u2")

    assert sorted(line for line in everyone.splitlines() if line.startswith("For")) == [
        "For u1 (event, release base-0):",
        "For u2 (event, release base-0):",
    ]
    assert "1. 85123A       0.500  you bought a WHITE HANGING HEART" in one
    assert "u1" not in one
