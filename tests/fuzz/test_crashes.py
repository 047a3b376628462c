"""What `make fuzz` once found does not come back; and a short run of it finds nothing."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from models.settings import load_settings
from streams.kafka.topics import TOPICS
from tests.fuzz.__main__ import CRASHES, fuzz, unpacked
from tests.fuzz.roles import Roles


@pytest.mark.parametrize("path", sorted(CRASHES.glob("*.json")), ids=lambda path: path.stem)
def test_no_role_raises_any_more(path: Path) -> None:
    record = unpacked(orjson.loads(path.read_bytes()))
    roles = Roles(load_settings())
    for _ in range(16):  # one in sixteen goes the slow ways, too
        roles.take(record.topic, record)
    roles.finish()


@pytest.mark.parametrize("topic", TOPICS)
def test_three_thousand_mutated_records_make_no_role_raise(topic: str) -> None:
    result = fuzz(topic, 3_000, seed=1)
    assert result.crashes == []
    assert result.outcomes > 5, "mutation leads nowhere"
