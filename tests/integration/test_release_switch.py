"""A release takes over while events flow: no list is lost, none mixes the vectors of two."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from models.settings import Settings
from tests.conftest import MakeSettings
from tests.integration.releasing import SaltedEmbedder, Wire, indexing, publish, tracking, wired
from tests.integration.releasing import profile_cosines as cosines

pytestmark = pytest.mark.service
TITLES = [f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in
          ("lamp", "bag", "mug", "clock", "card", "tin")]  # fmt: skip
USERS = [f"user-{number}" for number in range(24)]


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    return make_settings(
        kafka={"partitions": 2},
        index={"micro_batch": 16, "linger_s": 0.05},
        ranking={"refresh_s": 0.2, "interval_s": 0.1, "diversity": 0.0, "batch": 8},
        trigger={"min_interval_s": 0.2, "calls_per_minute": 6_000, "burst_calls": 50,
                 "settle_s": 0.0, "evidence": 2.0},
    )  # fmt: skip


async def shop(wire: Wire, stop: asyncio.Event) -> dict[str, int]:
    """Events of all users in turn until `stop`; how many each user made."""
    made = dict.fromkeys(USERS, 0)
    number = 0
    while not stop.is_set():
        user = USERS[number % len(USERS)]
        await wire.interact(number, user, TITLES[(number * 7) % len(TITLES)])
        made[user] += 1
        number += 1
        await asyncio.sleep(0.01)
    return made


def users_served_by(wire: Wire, release: str, since: int = 0) -> set[str]:
    return {one.user_id for one in wire.lists[since:] if one.release == release}


def newest(wire: Wire) -> dict[str, tuple[str, int]]:
    """(release, applied offset) of each user's last list."""
    return {one.user_id: (one.release, one.applied_offset) for one in wire.lists}


def assert_nothing_is_mixed(wire: Wire, settings: Settings) -> int:
    """Every list's profile scores are its own release's. Returns how many used a profile."""
    texts = {wire_profile_id(r, release): r for r in wire.requests for release in wire.embedders}
    looked_at = 0
    for made in wire.lists:
        if made.profile_id is None:
            assert not cosines(made, settings).any()
            continue
        embedder = wire.embedders[made.release]
        profile = embedder.embed([wire.profile(texts[made.profile_id]).text])[0]
        items = embedder.embed([item.item_id for item in made.items])
        assert np.allclose(cosines(made, settings), items @ profile, atol=5e-3), made
        looked_at += 1
    return looked_at


def wire_profile_id(request: object, release: str) -> str:
    return f"{request.request_id}-{release}"  # type: ignore[attr-defined]


async def switch(wire: Wire, release: str, previous: str) -> None:
    await wire.announce(release, "serving", previous=previous)
    wire.profile_release = release


def test_a_release_takes_over_while_events_flow_and_can_be_taken_back(settings: Settings) -> None:
    async def scenario() -> None:
        async with wired(settings) as wire, indexing(settings), tracking(settings) as role:
            await wire.items(TITLES)
            stop = asyncio.Event()
            shopping = asyncio.create_task(shop(wire, stop))
            await wire.until(lambda: users_served_by(wire, "base-0") == set(USERS), "base lists")
            await wire.until(lambda: any(one.profile_id for one in wire.lists), "profile lists")

            candidate = publish(settings, "next-1", "n")
            wire.embedders["next-1"] = SaltedEmbedder("n")
            await wire.announce(candidate, "published")
            await wire.until(lambda: wire.releases.has("next-1", "profiles-ready"), "ready")
            assert wire.releases.has("next-1", "items-ready")
            assert users_served_by(wire, "next-1") == set()

            await wire.announce("next-1", "serving", previous="base-0")
            await wire.until(lambda: users_served_by(wire, "next-1") == set(USERS), "moved")
            # The profiler has not moved yet: its vectors are of the old release.
            await wire.until(
                lambda: any(
                    one.release == "next-1" and (one.profile_id or "").endswith("base-0")
                    for one in wire.lists
                ),
                "a list of the new release with an old profile",
            )
            wire.profile_release = "next-1"
            await wire.until(
                lambda: any((one.profile_id or "").endswith("next-1") for one in wire.lists),
                "a list with a new profile",
            )

            before = len(wire.lists)
            await switch(wire, "base-0", previous="next-1")
            await wire.until(
                lambda: users_served_by(wire, "base-0", before) == set(USERS), "rolled back"
            )
            stop.set()
            made = await shopping
            await wire.until(lambda: total_applied(role) == sum(made.values()), "all applied")
            await wire.until(lambda: settled(role, wire), "every last event has its list")
            assert {release for release, _ in newest(wire).values()} == {"base-0"}
        assert assert_nothing_is_mixed(wire, settings) > 0
        ids = [one.recommendation_id for one in wire.lists]
        assert len(ids) == len(set(ids))

    asyncio.run(scenario())


def settled(role: object, wire: Wire) -> bool:
    """Whether each user's last list takes the last event into account, with the last profile."""
    said = newest(wire)
    return all(
        said.get(user_id, ("", -2))[1] == head.applied and head.recommended == head.applied
        for partition in role.working_set.clocks  # type: ignore[attr-defined]
        for user_id, head in role.working_set.users.heads(partition)  # type: ignore[attr-defined]
    )


def total_applied(role: object) -> int:
    return sum(
        len(role.working_set.users.get(partition, user_id).history)  # type: ignore[attr-defined]
        for partition in role.working_set.clocks  # type: ignore[attr-defined]
        for user_id, _ in role.working_set.users.heads(partition)  # type: ignore[attr-defined]
    )


def test_a_tracker_that_starts_while_there_is_a_candidate_serves_the_old_and_then_the_new(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with wired(settings) as wire, indexing(settings):
            await wire.items(TITLES)
            await wire.until(lambda: wire.releases.id == "base-0", "first release")
            await wire.announce(publish(settings, "next-1", "n", dimension=32), "published")
            wire.embedders["next-1"] = SaltedEmbedder("n", 32)
            await wire.until(lambda: wire.releases.has("next-1", "profiles-ready"), "ready")
            async with tracking(settings):
                await wire.interact(1, "ada", "red lamp")
                await wire.until(
                    lambda: any(one.profile_id for one in wire.lists), "a list with a profile"
                )
                assert {one.release for one in wire.lists} == {"base-0"}
                await wire.announce("next-1", "serving", previous="base-0")
                await wire.until(
                    lambda: wire.lists[-1].release == "next-1" and wire.lists[-1].profile_id,
                    "a list of the next release with the profile",
                )
            async with tracking(settings):  # a restart finds nothing owed
                before = len(wire.lists)
                await wire.interact(2, "bob", "blue mug")
                await wire.until(lambda: len(wire.lists) > before, "bob's list")
            assert {one.user_id for one in wire.lists[before:]} == {"bob"}
        assert assert_nothing_is_mixed(wire, settings) >= 2

    asyncio.run(scenario())


def test_a_tracker_that_was_down_during_the_switch_owes_everybody_a_list_of_the_new_release(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with wired(settings) as wire, indexing(settings):
            await wire.items(TITLES)
            await wire.until(lambda: wire.releases.id == "base-0", "first release")
            async with tracking(settings):
                for number, user in enumerate(USERS):
                    await wire.interact(number, user, TITLES[number % len(TITLES)])
                await wire.until(
                    lambda: {one.user_id for one in wire.lists if one.profile_id} == set(USERS),
                    "lists with profiles",
                )
            await wire.announce(publish(settings, "next-1", "n"), "published")
            wire.embedders["next-1"] = SaltedEmbedder("n")
            await wire.until(lambda: wire.releases.has("next-1", "profiles-ready"), "ready")
            await wire.announce("next-1", "serving", previous="base-0")
            before = len(wire.lists)
            async with tracking(settings):
                await wire.until(
                    lambda: users_served_by(wire, "next-1", before) == set(USERS), "moved"
                )
            later = wire.lists[before:]
            assert {(one.release, one.trigger) for one in later} == {("next-1", "release")}
            assert all(one.profile_id for one in later)
        assert_nothing_is_mixed(wire, settings)

    asyncio.run(scenario())
