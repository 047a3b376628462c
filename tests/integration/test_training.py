"""`palate train` beside the running system: from events to a release in service, and back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest

from models.schemas import Interaction, Recommendation
from models.settings import Settings
from tests.conftest import MakeSettings
from tests.integration.live import Live, live, until
from tests.integration.test_stack import SAMPLE, lists, profiles, send, shop
from tests.records import records

pytestmark = [pytest.mark.service, pytest.mark.timeout(900)]

CUSTOMERS, EVENTS = 16, 40
TRAIN_WITHIN_S = 600.0
# As little of everything as shows the way through; the gate lets all pass that was measured.
TRAIN = {
    "sessions": {"min_new_events": 100, "validation": 0.15, "test": 0.25},
    "policy": {"max_new_tokens": 24},
    # steep, so that the canary can tell the adapter from the base after so few steps
    "warm_start": {"steps": 6, "batch": 2, "micro_batch": 2, "learning_rate": 3e-3},
    "contrastive": {"steps": 2, "users": 4, "validation_users": 2, "batch": 4},
    "rlso": {"rounds": 1, "samples": 2, "prompts": 2, "batch": 2, "validation_users": 2},
    "gate": {
        **{"users": 4, "min_users": 1, "resamples": 100, "margin": 1.0, "anchor_margin": 1.0},
        **{"shuffled_loss": -1.0, "grounding_drop": 1.0, "length_change": 100.0},
        **{"copied_rise": 1.0, "repeated_rise": 1.0, "commonest_rise": 1.0, "entropy_drop": 1.0},
    },
}


def customers() -> list[str]:
    """Some of the sample's."""
    table = pq.read_table(SAMPLE / "interactions.parquet", columns=["user_id"])
    return sorted(set(table["user_id"].to_pylist()))[:CUSTOMERS]


@contextmanager
def views_of(settings: Settings, last: Interaction) -> Iterator[list[Interaction]]:
    """Somebody who looks at an item every second, all the while."""
    sent: list[Interaction] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(1.0):
            change = {
                "event_id": f"view-{len(sent)}",
                "type": "view",
                "timestamp": last.timestamp + 1_000 * (len(sent) + 1),
            }
            view = Interaction.model_validate({**last.model_dump(mode="json"), **change})
            send(settings, "interactions", [(view.user_id, view.to_json())])
            sent.append(view)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield sent
    finally:
        stop.set()
        looking.join()


def train(stack: Live) -> str:
    """Run `palate train`; the release that it put into service."""
    outcome = stack.palate("train", within_s=TRAIN_WITHIN_S)
    assert outcome["ending"] == "passed"
    assert [stage["name"] for stage in outcome["stages"]][-1] == "rlso-1"
    return str(outcome["release"])


def lists_of(settings: Settings, user_id: str) -> list[Recommendation]:
    """All of a user's lists, oldest first, each id once."""
    found: dict[str, Recommendation] = {}
    for record in records(settings, "recommendations"):
        made = Recommendation.model_validate_json(record.value)
        if made.user_id == user_id:
            found.setdefault(made.recommendation_id, made)
    return list(found.values())


def everyone_has(settings: Settings, users: set[str], release: str) -> bool:
    newest = lists(settings)
    return newest.keys() >= users and all(newest[user].release == release for user in users)


def changes(releases: list[str]) -> list[str]:
    """Without repetitions in a row."""
    return [one for n, one in enumerate(releases) if n == 0 or releases[n - 1] != one]


def test_what_is_trained_takes_over_while_events_flow_and_can_be_taken_back(
    kafka: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(
        kafka={"partitions": 2},
        trigger={"first_evidence": 20, "settle_s": 0.2, "min_interval_s": 1.0},
        profile={"starter": False, "max_new_tokens": 24},
        ranking={"interval_s": 0.0},
        log={"seconds": 0.2},
        index={"cooccurrence_every_s": 5.0},
        train=TRAIN,
    )
    items, interactions = shop(customers(), EVENTS)
    users, watched = {one.user_id for one in interactions}, interactions[-1]
    with live(settings) as stack:
        stack.up()
        send(settings, "items", [(item.item_id, item.to_json()) for item in items])
        send(settings, "interactions", [(one.user_id, one.to_json()) for one in interactions])
        until(lambda: everyone_has(settings, users, "base-0"), "lists by the first release")
        until(lambda: profiles(settings), "a first profile")
        with views_of(settings, watched) as sent:
            trained = train(stack)
            until(lambda: everyone_has(settings, users, trained), "lists by the trained release")
            until(
                lambda: any(one.release == trained for one in profiles(settings).values()),
                "a profile by the trained release",
            )
            stack.command("releases", "rollback")
            until(lambda: everyone_has(settings, users, "base-0"), "the first release's lists")
        made = lists_of(settings, watched.user_id)
        until(
            lambda: lists(settings)[watched.user_id].as_of >= sent[-1].timestamp,
            "the list after the last view",
        )
    assert changes([one.release for one in made]) == ["base-0", trained, "base-0"]
    assert {one.release for one in profiles(settings).values()} <= {"base-0", trained}
