"""The busiest users are decoded in memory, and no more of them than that holds."""

from __future__ import annotations

from collections import Counter

import pytest
from prometheus_client import CollectorRegistry

from models.schemas import Interaction
from models.settings import Settings
from streams.metrics import TrackerMetrics
from streams.tracker import users as users_module
from streams.tracker.reducer import Arrival, apply_interactions
from streams.tracker.users import Users
from tests.streams.tracker.arranging import Letters, MemoryPartitions

NOW = 1_300_000_000_000


def buy(users: Users, settings: Settings, number: int) -> None:
    event = Interaction(
        event_id=f"e{number}",
        user_id="busy",
        item_id="i",
        type="purchase",
        timestamp=NOW + number * 1000,
    )
    user = users.get(0, "busy")
    inserted = apply_interactions(user, [Arrival(event, number, NOW)], settings.windows, Counter())
    users.save(0, user, inserted)


def test_a_user_whose_history_is_full_takes_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(windows={"history_cap": 50})
    monkeypatch.setattr(users_module, "CACHED_ENTRIES", 200)
    metrics = TrackerMetrics(CollectorRegistry())
    users = Users(MemoryPartitions(Letters()), settings.windows.history_cap, metrics)
    for number in range(1_000):
        buy(users, settings, number)
    for number in range(100):
        users.get(0, f"u{number}")
    assert len(users._cache) == 101  # 51 entries of the one, and one each of the others
    for number in range(100, 200):
        users.get(0, f"u{number}")
    assert (0, "busy") not in users._cache  # who has not been asked for the longest goes
    users.forget_cached(0)
    assert users._entries == 0
