"""`palate dead-letters` against a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner, Result

from deploy.commands.dead_letters import app
from models.schemas import Interaction
from models.settings import Settings
from streams.codec import FORWARDED_HEADER, Rejected
from streams.kafka.clients import consumer, dead_letter_send, producer
from streams.kafka.topics import ensure_topics
from streams.metrics import RoleMetrics
from tests.conftest import MakeSettings, role_environment
from tests.streams.logged import NOW, ARecord

pytestmark = pytest.mark.service


def interaction(event_id: str) -> Interaction:
    return Interaction(event_id=event_id, user_id="ann", item_id="i", type="click", timestamp=NOW)


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    made = make_settings(kafka={"partitions": 2})
    asyncio.run(_refuse_three(made))
    return made


async def _refuse_three(settings: Settings) -> None:
    await ensure_topics(settings)
    topic = settings.topic("interactions")
    misrouted = ((FORWARDED_HEADER, b"1"),)
    refused = [
        (ARecord(topic, 0, 4, b"\xff[red]", b"ann"), "not_json"),
        (
            ARecord(topic, 1, 5, interaction("moved").to_json(), b"bob", headers=misrouted),
            "wrong_key",
        ),
        (ARecord(topic, 0, 6, b"x" * 400_000, b"ann"), "too_large"),
    ]
    metrics = RoleMetrics(CollectorRegistry())
    async with producer(settings) as sender:
        for record, reason in refused:
            await dead_letter_send(sender, settings, record, Rejected(reason, "why"), metrics)
        record, reason = refused[0]
        await dead_letter_send(sender, settings, record, Rejected(reason, "why"), metrics)


def palate(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={**role_environment(settings), "COLUMNS": "200"})


async def _sent(settings: Settings) -> list[tuple[bytes, bytes]]:
    async with consumer(settings, ["interactions"], None) as reader:
        ends = await reader.end_offsets(reader.assignment())
        found = []
        while any([await reader.position(place) < end for place, end in ends.items()]):
            for records in (await reader.getmany(timeout_ms=200)).values():
                found += [(record.key, record.value) for record in records]
        return found


def test_they_are_listed_once_with_reason_and_origin(settings: Settings) -> None:
    listed = orjson.loads(palate(settings, "--json").stdout)
    origins = sorted((line["reason"], line["partition"], line["offset"]) for line in listed)
    assert origins == [("not_json", 0, 4), ("too_large", 0, 6), ("wrong_key", 1, 5)]
    shown = palate(settings, "--reason", "not_json").stdout
    assert "[red]" in shown
    assert "interactions/0/4" in shown
    assert "1 dead letters: 1 not_json" in shown


def test_corrected_ones_are_sent_once_under_the_right_key(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "corrected.jsonl"
    corrected = interaction("corrected").to_json()
    place = {"topic": "interactions", "partition": 0, "offset": 4}
    file.write_bytes(orjson.dumps(place | {"value": orjson.loads(corrected)}))
    for expected in ({"sent": 1}, {"already sent": 1}):
        result = palate(settings, "replay", str(file), "--json")
        assert (result.exit_code, orjson.loads(result.stdout)["counts"]) == (0, expected)
    assert asyncio.run(_sent(settings)) == [(b"ann", corrected)]


def test_those_whose_reason_has_passed_go_back_as_they_were(settings: Settings) -> None:
    result = palate(settings, "replay", "--as-is", "--json")
    assert (result.exit_code, orjson.loads(result.stdout)["counts"]) == (0, {"sent": 1})
    assert asyncio.run(_sent(settings)) == [(b"ann", interaction("moved").to_json())]


def test_one_that_would_be_refused_again_is_not_sent(settings: Settings) -> None:
    result = palate(settings, "replay", "--as-is", "--reason", "not_json")
    assert result.exit_code == 1
    assert "refused" in result.stdout
    assert asyncio.run(_sent(settings)) == []
