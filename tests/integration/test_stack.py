"""All of Palate at once, with the real models: purchases in, profiles and lists out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

from models.identity import digest
from models.schemas import Interaction, InteractionType, Item, Profile, Recommendation
from models.settings import Settings
from streams.kafka.clients import deliver, producer
from tests.conftest import MakeSettings
from tests.integration.live import Live, live, until
from tests.records import records

pytestmark = pytest.mark.model
SAMPLE = Path(__file__).parent.parent.parent / "data" / "sample"
CUSTOMERS = ("12863", "16298", "17420", "18062")
EVENTS = 30  # of each customer's


class Shop(NamedTuple):
    """A few real customers and what they bought, oldest first."""

    items: list[Item]
    interactions: list[Interaction]

    def last_of(self, user_id: str) -> Interaction:
        return [one for one in self.interactions if one.user_id == user_id][-1]

    def title(self, item_id: str) -> str:
        return next(item.title for item in self.items if item.item_id == item_id)


def shop(customers: Sequence[str], events: int) -> Shop:
    """The first events of each of these customers of the sample."""
    rows = pq.read_table(
        SAMPLE / "interactions.parquet", filters=[("user_id", "in", customers)]
    ).to_pylist()
    kept = [row for user in customers for row in [r for r in rows if r["user_id"] == user][:events]]
    interactions = [
        Interaction(
            event_id=digest(number, row["user_id"], row["item_id"]),
            user_id=row["user_id"],
            item_id=row["item_id"],
            type=row["event_type"],
            timestamp=row["timestamp"] * 1000,
        )
        for number, row in enumerate(sorted(kept, key=lambda row: row["timestamp"]))
    ]
    bought = {one.item_id for one in interactions}
    titles = pq.read_table(SAMPLE / "items.parquet").to_pylist()
    items = [Item(**row) for row in titles if row["item_id"] in bought]
    return Shop(items, interactions)


def send(settings: Settings, topic: str, messages: list[tuple[str, bytes | None]]) -> None:
    """(key, value) each, in order."""

    async def produce() -> None:
        async with producer(settings) as sender:
            for key, value in messages:
                await deliver(sender, settings.topic(topic), value, key=key.encode())

    asyncio.run(produce())


def profiles(settings: Settings) -> dict[str, Profile]:
    """User → newest profile."""
    found = [Profile.model_validate_json(record.value) for record in records(settings, "profiles")]
    return {one.user_id: one for one in found}


def lists(settings: Settings) -> dict[str, Recommendation]:
    """User → newest list."""
    found = [
        Recommendation.model_validate_json(record.value)
        for record in records(settings, "recommendations")
    ]
    return {one.user_id: one for one in found}


class Shopper:
    """One of the customers, who goes on looking at the item bought last."""

    def __init__(self, settings: Settings, last: Interaction) -> None:
        self._settings, self._last, self._views = settings, last, 0

    def listed_after_a_view(self) -> set[str]:
        """Items of the list that the view leads to."""
        self._views += 1
        before = lists(self._settings)[self._last.user_id].recommendation_id
        change = {
            "event_id": f"view-{self._views}",
            "type": InteractionType.VIEW,
            "timestamp": self._last.timestamp + self._views * 1000,
        }
        view = self._last.model_copy(update=change)
        send(self._settings, "interactions", [(view.user_id, view.to_json())])
        until(lambda: self._list().recommendation_id != before, "a list after the view")
        return {item.item_id for item in self._list().items}

    def _list(self) -> Recommendation:
        return lists(self._settings)[self._last.user_id]


def test_purchases_become_profiles_by_the_model_and_lists_from_them(
    kafka: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(
        kafka={"partitions": 2},
        trigger={"first_evidence": 20, "min_interval_s": 3_600},  # one profile of each
        ranking={"exclude_seen": True, "interval_s": 0.0},
        log={"seconds": 0.2},
        index={"cooccurrence_every_s": 1.0},
    )
    known = shop(CUSTOMERS, EVENTS)
    with live(settings) as stack:
        stack.up()
        send(settings, "items", [(item.item_id, item.to_json()) for item in known.items])
        send(settings, "interactions", [(one.user_id, one.to_json()) for one in known.interactions])
        written = all_profiles(settings)
        check_profiles(written, known)
        until(lambda: from_profiles(settings, written), "a list from every profile")
        check_new_item(settings, known)
        check_commands(stack, written)


def all_profiles(settings: Settings) -> dict[str, Profile]:
    until(lambda: profiles(settings).keys() == set(CUSTOMERS), "a profile of every customer")
    return profiles(settings)


def check_profiles(written: dict[str, Profile], known: Shop) -> None:
    """The model wrote them, and each sentence rests on what the customer did."""
    events = {(one.user_id, one.event_id) for one in known.interactions}
    for user_id, profile in written.items():
        assert (profile.model, profile.fallback) == ("smollm2-135m-instruct", False)
        assert profile.tokens.completion > 0
        sections = profile.sections
        said = [*sections.stable, *sections.current, *sections.now, *sections.avoids]
        assert said
        assert all(one.evidence for one in said)
        assert {(user_id, event) for one in said for event in one.evidence} <= events
    assert sum(profile.sentences.kept for profile in written.values()) > 0


def from_profiles(settings: Settings, written: dict[str, Profile]) -> bool:
    made = lists(settings)
    return all(made[user].profile_id == profile.profile_id for user, profile in written.items())


def check_new_item(settings: Settings, known: Shop) -> None:
    """An item is on a list soon after it was published, and on none after it was removed."""
    last = known.last_of(CUSTOMERS[0])
    shopper = Shopper(settings, last)
    new = Item(item_id="new", title=f"{known.title(last.item_id)} DELUXE")
    send(settings, "items", [("new", new.to_json())])
    until(lambda: "new" in shopper.listed_after_a_view(), "the new item on a list")
    send(settings, "items", [("new", None)])
    until(lambda: "new" not in shopper.listed_after_a_view(), "the new item off the list")


def check_commands(stack: Live, written: dict[str, Profile]) -> None:
    """What the commands say about it."""
    user = CUSTOMERS[0]
    newest = lists(stack.settings)[user].recommendation_id
    until(lambda: recommended(stack, user)["recommendation_id"] == newest, "the list in the log")
    shown = stack.palate("profile", user)
    assert shown["profile"]["text"] == written[user].text
    assert shown["evidence"]
    assert all(item["reason"]["text"] for item in recommended(stack, user)["items"])
    assert len(stack.palate("history", user, "--last", "5")["events"]) == 5
    status = stack.palate("status")
    assert all(role["ready"] for role in status["roles"])
    assert status["kafka"]["serving"] == "base-0"
    report = stack.palate("check", "parity")
    assert (report["mismatch_count"], report["waiting"]) == (0, 0)
    assert report["profiles"] == len(CUSTOMERS)


def recommended(stack: Live, user: str) -> dict:
    return stack.palate("recommend", user)["recommendation"]
