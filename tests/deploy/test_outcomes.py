"""`palate outcomes` on planted lists and interactions."""

from __future__ import annotations

from typing import Any

import duckdb
import orjson
import pytest

from deploy.outcomes import DAY_MS, Outcomes, Ratio, outcomes
from models.settings import DEFAULT_WEIGHTS
from streams.event_log.views import wish_views

START = 1_300_000_000_000 // DAY_MS * DAY_MS  # midnight


class Planted:
    """A log made by hand. Times are days after START; offsets count up."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute(
            'CREATE TABLE interactions ("offset" BIGINT, status TEXT, event_id TEXT, user_id TEXT,'
            ' item_id TEXT, type TEXT, "timestamp" BIGINT, recommendation_id TEXT,'
            " kafka_time BIGINT)"
        )
        self.connection.execute(
            'CREATE TABLE recommendations ("offset" BIGINT, status TEXT, recommendation_id TEXT,'
            ' user_id TEXT, as_of BIGINT, applied_offset BIGINT, "trigger" TEXT, release TEXT,'
            " items JSON, kafka_time BIGINT)"
        )
        self.connection.execute(
            'CREATE TABLE edits ("offset" BIGINT, edit_id TEXT, status TEXT,'
            " action TEXT, user_id TEXT, kafka_time BIGINT,"
            ' "timestamp" BIGINT)'
        )
        for view in wish_views(DEFAULT_WEIGHTS):
            self.connection.execute(view)
        self.offset = 0

    def did(self, user: str, item: str, day: float, kind: str = "purchase", **more: Any) -> int:
        """One interaction; returns its offset."""
        self.offset += 1
        at = START + int(day * DAY_MS)
        row = [self.offset, "ok", more.get("event_id", f"e{self.offset}"), user, item, kind, at]
        self.connection.execute(
            "INSERT INTO interactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [*row, more.get("recommendation_id"), at],
        )
        return self.offset

    def given(self, user: str, day: float, items: list[str], name: str, **more: Any) -> None:
        """One list that knows everything up to now, with items for alternating reasons."""
        self.offset += 1
        lines = [
            {"item_id": item, "rank": n, "reason": {"kind": ("recent", "profile")[n % 2]}}
            for n, item in enumerate(items, 1)
        ]
        self.connection.execute(
            "INSERT INTO recommendations VALUES (?, 'ok', ?, ?, ?, ?, 'event', ?, ?, ?)",
            [
                *(self.offset, name, user, START + int(day * DAY_MS)),
                *(more.get("applied", self.offset), more.get("release", "base-0")),
                *(orjson.dumps(lines).decode(), START + int(day * DAY_MS)),
            ],
        )

    def forget(self, user: str, day: float) -> None:
        """The user asks to be forgotten."""
        at = START + int(day * DAY_MS)
        self.connection.execute(
            "INSERT INTO edits VALUES (?, ?, 'ok', 'forget', ?, ?, ?)",
            [self.offset, f"w{at}", user, at, at],
        )

    def outcomes(self, **options: Any) -> Outcomes:
        return outcomes(self.connection, **options)


@pytest.fixture
def log() -> Planted:
    return Planted()


def test_a_purchase_of_a_listed_item_is_a_hit_at_its_rank_and_reason(log: Planted) -> None:
    log.given("ann", 1.0, ["a", "b", "c"], "r1")
    log.did("ann", "b", 2.0)
    log.did("ann", "x", 2.0)
    found = log.outcomes()
    assert found.interactions == Ratio(1, 2)
    assert found.visits == Ratio(1, 1)
    assert found.by_rank == {1: Ratio(0, 1), 2: Ratio(1, 1), 3: Ratio(0, 1)}
    assert found.by_reason == {"profile": Ratio(0, 2), "recent": Ratio(1, 1)}
    assert found.by_release == {"base-0": Ratio(1, 2)}


def test_the_newest_list_before_the_interaction_judges_it(log: Planted) -> None:
    log.given("ann", 1.0, ["a"], "old")
    log.given("ann", 2.0, ["b"], "new", release="next-1")
    log.did("ann", "a", 3.0)
    log.did("ann", "b", 3.0)
    found = log.outcomes()
    assert found.interactions == Ratio(1, 2)
    assert found.by_release == {"next-1": Ratio(1, 2)}
    assert (found.lists, found.lists_judged) == (2, 1)


def test_a_list_made_in_the_middle_of_a_basket_does_not_judge_the_rest_of_it(log: Planted) -> None:
    log.given("ann", 1.0, ["a", "b"], "before")
    log.did("ann", "a", 2.0)
    log.given("ann", 2.0, ["z"], "within")
    log.did("ann", "b", 2.0)
    assert log.outcomes().interactions == Ratio(2, 2)


def test_a_list_that_knew_the_interaction_does_not_judge_it(log: Planted) -> None:
    known = log.did("ann", "a", 2.0)
    log.given("ann", 1.0, ["a"], "r1", applied=known)
    assert log.outcomes().interactions == Ratio(0, 0)


def test_nothing_is_judged_after_the_horizon_or_without_a_list(log: Planted) -> None:
    log.given("ann", 1.0, ["a"], "r1")
    log.did("ann", "a", 40.0)
    log.did("bob", "a", 2.0)
    assert log.outcomes(days=30).interactions == Ratio(0, 0)
    assert log.outcomes(days=60).interactions == Ratio(1, 1)


def test_an_interaction_that_names_its_list_is_judged_by_that_list(log: Planted) -> None:
    log.given("ann", 1.0, ["a"], "first")
    log.given("ann", 2.0, ["b"], "second")
    log.did("ann", "a", 3.0, recommendation_id="first")
    found = log.outcomes()
    assert found.interactions == Ratio(1, 1)
    assert found.lists_judged == 1


def test_only_the_chosen_types_count(log: Planted) -> None:
    log.given("ann", 1.0, ["a", "b"], "r1")
    log.did("ann", "a", 2.0, "view")
    log.did("ann", "b", 2.0, "cancel")
    assert log.outcomes().interactions == Ratio(0, 0)
    assert log.outcomes(types=["view"]).interactions == Ratio(1, 1)


def test_an_item_taken_twice_and_an_event_sent_twice_count_once(log: Planted) -> None:
    log.given("ann", 1.0, ["a"], "r1")
    log.did("ann", "a", 2.0, event_id="same")
    log.did("ann", "a", 2.0, event_id="same")
    log.did("ann", "a", 3.0)
    assert log.outcomes().interactions == Ratio(1, 1)


def test_popularity_is_judged_on_the_same_interactions_from_the_month_before(log: Planted) -> None:
    for day in (1, 2, 3):
        log.did("bob", "hot", day)
    log.did("bob", "warm", 3)
    log.given("ann", 5.0, ["cold"], "r1")
    log.did("ann", "hot", 6.0)
    log.did("ann", "warm", 6.0)
    found = log.outcomes()
    assert found.interactions == Ratio(0, 2)
    assert found.popularity == Ratio(1, 2), "a list of one item is compared to the one most popular"
    assert found.popularity_visits == Ratio(1, 1)


def test_popularity_does_not_know_the_day_of_the_list_or_later(log: Planted) -> None:
    log.given("ann", 1.2, ["cold"], "r1")
    log.did("bob", "hot", 1.1)
    log.did("ann", "hot", 2.0)
    assert log.outcomes().popularity == Ratio(0, 1)


def test_since_and_until_choose_the_interactions_that_are_judged(log: Planted) -> None:
    log.given("ann", 1.0, ["a", "b"], "r1")
    log.did("ann", "a", 2.0)
    log.did("ann", "b", 4.0)
    assert log.outcomes(since=START + 3 * DAY_MS).interactions == Ratio(1, 1)
    assert log.outcomes(until=START + 3 * DAY_MS).interactions == Ratio(1, 1)
    assert log.outcomes(since=START + 5 * DAY_MS).interactions == Ratio(0, 0)


def test_an_empty_log_has_no_outcomes(log: Planted) -> None:
    found = log.outcomes()
    assert found.interactions.rate == 0.0
    assert found.as_json()["visits"] == {"hits": 0, "of": 0, "rate": 0.0}


def test_what_a_user_asked_to_be_forgotten_is_not_judged(log: Planted) -> None:
    log.given("ann", 1.0, ["a"], "r1")
    log.did("ann", "a", 2.0)
    log.given("bob", 1.0, ["a"], "r2")
    log.did("bob", "a", 2.0)
    log.forget("ann", 3.0)
    log.given("ann", 4.0, ["b"], "r3")
    log.did("ann", "b", 5.0)

    found = log.outcomes()

    assert (found.lists, found.interactions) == (2, Ratio(2, 2))
    assert found.popularity == Ratio(0, 2)  # of a, bob's purchase came with his list
