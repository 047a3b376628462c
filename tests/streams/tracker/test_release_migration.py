"""Users get the vector and the list of the release that serves."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.errors import VectorIndexError
from models.fakes import MemoryIndex
from models.ports import VectorRow
from models.settings import Settings
from streams.metrics import TrackerMetrics
from streams.partition_clock import PartitionClock
from streams.tracker.release_migration import LOOKED_THROUGH, ReleaseMigration, is_foreign
from streams.tracker.scheduling import ServeQueue
from streams.tracker.state import Head, ProfileRecord, User
from streams.tracker.users import Users

NOW = 1_300_000_000_000


class States:
    """The partitions' states in a dictionary."""

    def __init__(self):
        self.records = {}

    def get(self, partition, key):
        return self.records.get((partition, key))

    def write(self, partition, records):
        for key, value in records:
            self.records[partition, key] = value

    def scan(self, partition, prefix, after=b""):
        for at, key in sorted(self.records):
            if at == partition and key.startswith(prefix) and key > prefix + after:
                yield key, self.records[at, key]


def record(profile_id: str, vector_release: str = "old") -> ProfileRecord:
    vector = np.array([1.0, 0.0], "<f2").tobytes()
    return ProfileRecord(
        profile_id, 1, NOW, 5, -1, False, vector_release, vector_release, b"{}", vector
    )


def row(user: str, profile_id: str, vector: tuple[float, float] = (0.0, 1.0)) -> VectorRow:
    return VectorRow(user, np.array(vector, np.float32), "", 0, {"profile_id": profile_id})


class World:
    """Users of two partitions who were served by release `old`, and a shelf of `new`."""

    def __init__(self, index=None, refresh_s=1e-9, batch=4):
        self.settings = Settings(ranking={"refresh_s": refresh_s, "batch": batch})
        self.users = Users(States(), 500, TrackerMetrics(CollectorRegistry()))
        self.waiting = ServeQueue(0.0)
        self.views = SimpleNamespace(snapshot=SimpleNamespace(release="old"))
        self.index = index or MemoryIndex()
        self.clocks = {0: PartitionClock(NOW), 1: PartitionClock(NOW)}
        self.migration = ReleaseMigration(
            self.settings,
            self.users,
            self.waiting,
            self.views,
            self.index,
            self.clocks,
            TrackerMetrics(CollectorRegistry()),
        )
        self.migration.begin("old")

    def add(self, user_id: str, profile: ProfileRecord | None, partition: int = 0) -> None:
        head = Head(
            applied=5,
            recommended=5,
            recommended_profile=profile.profile_id if profile else "",
            recommended_release="old",
        )
        user = User(user_id, head)
        self.users.save(partition, user)
        if profile:
            self.users.save_profile(partition, user, profile)
        self.users.forget_cached(partition)

    def profile(self, user_id: str, partition: int = 0) -> ProfileRecord:
        return self.users.get(partition, user_id).profile

    def until_taken(self, count: int) -> list[tuple[int, str]]:
        """Step until so many users are due for a list; in between the tracker rests."""
        taken = []
        while len(taken) < count:
            taken += self.steps()
        return taken

    def steps(self, count: int = 1) -> list[tuple[int, str]]:
        async def take_them():
            for _ in range(count):
                await self.migration.step()

        asyncio.run(take_them())
        return self.waiting.take(1_000, time.monotonic())


def test_a_vector_is_foreign_to_every_release_but_its_own():
    assert not is_foreign(None, "old")
    assert not is_foreign(record("p"), "old")
    assert is_foreign(record("p"), "new")
    assert not is_foreign(record("p"), None)


def test_nothing_moves_while_the_release_stays():
    world = World()
    world.add("ada", record("p"))
    assert world.steps(3) == []


def test_all_users_move_with_the_vectors_of_the_new_release():
    world = World()
    world.add("ada", record("p"))
    world.add("bob", None, partition=1)
    world.index.upsert("profiles@new", [row("ada", "p")])
    world.views.snapshot = SimpleNamespace(release="new")
    assert sorted(world.until_taken(2)) == [(0, "ada"), (1, "bob")]
    assert world.profile("ada").vector_release == "new"
    assert world.profile("ada").unit_vector().tolist() == [0.0, 1.0]
    world.users.forget_cached(0)
    assert world.profile("ada").vector_release == "new"  # it is in the table


@pytest.mark.parametrize("found", [None, "another"])
def test_without_the_vector_of_the_very_profile_the_list_is_owed_and_the_vector_sought(found):
    world = World()
    world.add("ada", record("p"))
    world.index.upsert("profiles@new", [row("ada" if found else "eve", found or "p")])
    world.views.snapshot = SimpleNamespace(release="new")
    assert world.until_taken(1) == [(0, "ada")]
    assert world.profile("ada").vector_release == "old"
    assert len(world.migration) == 1
    world.index.upsert("profiles@new", [row("ada", "p")])
    assert world.until_taken(1) == [(0, "ada")]
    assert world.profile("ada").vector_release == "new"
    assert len(world.migration) == 0


def test_a_profile_that_comes_with_another_releases_vector_waits_for_its_own():
    world = World()
    world.add("ada", record("p"))
    world.users.save_profile(0, world.users.get(0, "ada"), record("q", "new"))
    user = world.users.get(0, "ada")
    world.migration.look_at((0, "ada"), user.head, user.profile)
    assert world.waiting.take(9, 0.0) == []
    world.index.upsert("profiles@old", [row("ada", "q")])
    assert world.steps(1) == [(0, "ada")]
    assert world.profile("ada").vector_release == "old"


def test_many_users_are_looked_through_some_at_a_time_and_none_is_left_out():
    world = World(batch=10_000)
    names = [f"u{number:04}" for number in range(2 * LOOKED_THROUGH + 3)]
    for name in names:
        world.add(name, None)
    world.views.snapshot = SimpleNamespace(release="new")
    assert len(world.steps(1)) == LOOKED_THROUGH
    rest = world.until_taken(LOOKED_THROUGH + 3)
    assert len({user for _, user in rest}) == LOOKED_THROUGH + 3


def test_while_a_batch_waits_no_more_users_are_added():
    world = World(batch=2)
    world.add("ada", None)
    world.waiting.add((1, "x"))
    world.waiting.add((1, "y"))
    world.views.snapshot = SimpleNamespace(release="new")
    assert (0, "ada") not in world.steps(3)


def test_an_index_that_does_not_answer_loses_nobody():
    class Away(MemoryIndex):
        down = True

        def get(self, table, ids):
            if self.down:
                raise OSError("away")
            return super().get(table, ids)

    world = World(Away())
    world.add("ada", record("p"))
    world.index.upsert("profiles@new", [row("ada", "p")])
    world.views.snapshot = SimpleNamespace(release="new")
    world.steps(1)
    with pytest.raises(VectorIndexError, match="away"):
        world.steps(1)
    world.index.down = False
    assert world.steps(1) == [(0, "ada")]
    assert world.profile("ada").vector_release == "new"


def test_partitions_that_are_no_longer_ours_are_left_alone():
    world = World()
    world.add("ada", record("p"), partition=1)
    world.index.upsert("profiles@new", [row("ada", "p")])
    world.views.snapshot = SimpleNamespace(release="new")
    del world.clocks[1]
    assert world.steps(4) == []
    assert world.profile("ada", 1).vector_release == "old"
