"""`palate train` beside the running system: from events to a release in service, and back."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.engines.embedder import SentenceEmbedder
from models.engines.model_files import embedder_model
from models.release.store import FolderReleaseStore, embedder_folder
from models.schemas import Interaction, Item, Profile, Recommendation
from models.settings import Settings
from models.text import embedding_text
from tests.conftest import MakeSettings
from tests.integration.live import Live, live, until
from tests.integration.releasing import profile_cosines
from tests.integration.test_stack import SAMPLE, lists, profiles, send, shop
from tests.records import records
from trainer.learning.profile_systems import RememberingEmbedder

pytestmark = pytest.mark.model

CUSTOMERS, EVENTS = 16, 40
# As little of everything as shows the way through; the gate lets all pass that was measured.
TRAIN = {
    "sessions": {"min_new_events": 100, "validation": 0.15, "test": 0.25},
    # steep, so that the canary can tell the adapter from the base after so few steps
    "warm_start": {"steps": 6, "batch": 2, "micro_batch": 2, "learning_rate": 3e-3},
    # Without a validation the last step is kept: the release brings an embedder of its own, and
    # the steep rate makes its vectors other ones.
    "contrastive": {"steps": 2, "users": 4, "validation_users": 0, "batch": 4}
    | {"learning_rate": 2e-4},
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
    outcome = stack.palate("train")
    assert outcome["ending"] == "passed"
    assert [stage["name"] for stage in outcome["stages"]][-1] == "rlso-1"
    return str(outcome["release"])


def all_lists(settings: Settings) -> list[Recommendation]:
    """Each id once, a user's oldest first."""
    found: dict[str, Recommendation] = {}
    for record in records(settings, "recommendations"):
        made = Recommendation.model_validate_json(record.value)
        found.setdefault(made.recommendation_id, made)
    return list(found.values())


def all_profiles(settings: Settings) -> dict[str, Profile]:
    """By id."""
    found = [Profile.model_validate_json(record.value) for record in records(settings, "profiles")]
    return {one.profile_id: one for one in found}


def a_list_by_its_own_profile(settings: Settings, release: str) -> bool:
    """Whether a list of the release names a profile that the release wrote."""
    written = {name for name, one in all_profiles(settings).items() if one.release == release}
    return any(one.release == release and one.profile_id in written for one in all_lists(settings))


def everything_is_told(settings: Settings) -> bool:
    """Whether each user's newest list takes the user's last event into account."""
    last = {one.key.decode(): one.offset for one in records(settings, "interactions")}
    return {user: made.applied_offset for user, made in lists(settings).items()} == last


def everyone_has(settings: Settings, users: set[str], release: str) -> bool:
    newest = lists(settings)
    return newest.keys() >= users and all(newest[user].release == release for user in users)


def embedders(settings: Settings, release: str) -> dict[str, SentenceEmbedder]:
    """Of base-0, and of the trained release, which must have brought its own."""
    store = FolderReleaseStore(settings.releases_dir)
    own = embedder_folder(store, store.get(release))
    assert own is not None, f"{release} has the embedder of base-0: there was none to switch"
    return {
        "base-0": SentenceEmbedder(embedder_model(settings), settings.embedder),
        release: SentenceEmbedder(own, settings.embedder),
    }


class Cosines:
    """Between the profile and the items of a list, under a release's embedder."""

    def __init__(self, settings: Settings, items: Sequence[Item], release: str) -> None:
        chars = settings.embedder.description_chars
        self._texts = {item.item_id: embedding_text(item, chars) for item in items}
        self._by = {
            name: RememberingEmbedder(one) for name, one in embedders(settings, release).items()
        }

    def of(self, made: Recommendation, profile: Profile, release: str) -> np.ndarray:
        """[items of the list]"""
        texts = [self._texts[item.item_id] for item in made.items]
        embedder = self._by[release]
        found: np.ndarray = embedder.embed(texts) @ embedder.embed([profile.text])[0]
        return found


def assert_nothing_is_mixed(settings: Settings, items: Sequence[Item], trained: str) -> None:
    """What a list says of its profile is what the embedder of its own release makes of it.

    And of it alone: by the other release's embedder the same texts lie elsewhere.
    """
    cosines, written = Cosines(settings, items, trained), all_profiles(settings)
    other = {"base-0": trained, trained: "base-0"}
    looked_at = set()
    for made in all_lists(settings):
        told = profile_cosines(made, settings)
        if made.profile_id is None:
            assert not told.any()
            continue
        profile = written[made.profile_id]
        assert np.allclose(told, cosines.of(made, profile, made.release), atol=5e-3), made
        assert not np.allclose(told, cosines.of(made, profile, other[made.release]), atol=2e-2)
        looked_at.add(made.release)
    assert looked_at == {"base-0", trained}


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
                lambda: a_list_by_its_own_profile(settings, trained),
                "a list and its profile by the trained release",
            )
            stack.command("releases", "rollback")
            until(lambda: everyone_has(settings, users, "base-0"), "the first release's lists")
        until(lambda: everything_is_told(settings), "every user's list after the last event")
        assert sent
        for user in users:
            releases = [one.release for one in all_lists(settings) if one.user_id == user]
            assert changes(releases) == ["base-0", trained, "base-0"], user
        assert {one.release for one in all_profiles(settings).values()} == {"base-0", trained}
        assert_nothing_is_mixed(settings, items, trained)
