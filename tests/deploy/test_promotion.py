"""What a promotion requires of the release that serves; the topic is in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from deploy.promotion import in_force, promote, releases_topic, rollback, serving_of
from models.errors import ReleaseError, ReleaseNotReady, StackError
from models.ports import InForce, Release
from models.release.store import FolderReleaseStore, base_release
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.releases import ServingRelease

AT = 1_300_000_000_000


def announced(release: str, status: str, by: str, **more: Any) -> ReleaseAnnouncement:
    now = time.time_ns() // 1_000_000
    step = {"release": release, "status": status, "by": by, "at": now, **more}
    return ReleaseAnnouncement.model_validate(step)


@dataclass
class MemoryTopic:
    """`deploy.promotion.Topic` whose roles take a candidate up at once, unless they are away."""

    settings: Settings
    releases: ServingRelease = field(default_factory=ServingRelease)
    away: bool = False
    lost: bool = False  # what is said does not come back
    meanwhile: Callable[[], None] = lambda: None  # what happens while a candidate is made ready

    async def say(self, release: Release, status: str, **more: Any) -> ReleaseAnnouncement:
        if self.lost:
            return announced(release.id, status, "palate", **more)
        said = self.take(release.id, status, "palate", **more)
        if status == "published" and not self.away:
            for step, by in (
                ("items-ready", "indexer"),
                ("profiles-ready", "indexer"),
                ("engine-ready", "profiler/1"),
            ):
                self.take(release.id, step, by)
            self.meanwhile()
        return said

    def take(
        self, release: str, status: str, by: str = "palate", **more: Any
    ) -> ReleaseAnnouncement:
        said = announced(release, status, by, **more)
        self.releases.take(said)
        return said

    async def live_profilers(self) -> frozenset[str]:
        return frozenset({"profiler/1"})


@pytest.fixture
def topic(make_settings) -> MemoryTopic:
    """base-0 serves; old and taste-1 are published."""
    found = MemoryTopic(make_settings())
    store = FolderReleaseStore(found.settings.releases_dir)
    for name in ("base-0", "old", "taste-1"):
        store.publish(replace(base_release(found.settings, AT), id=name))
    found.take("base-0", "serving")
    return found


def put(topic: MemoryTopic, instead_of: InForce | None, within_s: float = 5.0) -> None:
    store = FolderReleaseStore(topic.settings.releases_dir)
    asyncio.run(promote(topic, store, "taste-1", instead_of=instead_of, within_s=within_s))  # type: ignore[arg-type]


def now(topic: MemoryTopic) -> InForce:
    return in_force(topic.releases, FolderReleaseStore(topic.settings.releases_dir))


@pytest.mark.parametrize("compared", [True, False])
def test_a_candidate_takes_the_place_of_the_release_it_was_compared_with(
    topic: MemoryTopic, compared: bool
) -> None:
    put(topic, now(topic) if compared else None)

    assert topic.releases.id == "taste-1"


def test_a_candidate_never_takes_the_place_of_another_release(topic: MemoryTopic) -> None:
    base = now(topic)
    topic.take("old", "serving")

    with pytest.raises(ReleaseError, match="compared with 'base-0', and 'old' serves now"):
        put(topic, base)
    assert (topic.releases.id, topic.releases.candidate) == ("old", None)


def test_a_rollback_while_a_candidate_is_made_ready_stands(topic: MemoryTopic) -> None:
    topic.meanwhile = lambda: topic.take("old", "serving")

    with pytest.raises(ReleaseError, match="'old' serves now"):
        put(topic, now(topic))
    assert topic.releases.id == "old"


def test_a_rollback_to_the_release_it_was_compared_with_stands_too(topic: MemoryTopic) -> None:
    base = now(topic)
    topic.take("old", "serving")
    topic.take("base-0", "serving")

    with pytest.raises(ReleaseError, match="'base-0' serves now again, after another"):
        put(topic, base)
    assert topic.releases.id == "base-0"


def test_one_that_is_announced_and_nowhere_is_not_taken_for_the_one_that_serves(
    topic: MemoryTopic, caplog: pytest.LogCaptureFixture
) -> None:
    topic.take("old", "serving")
    topic.take("ghost", "serving")
    store = FolderReleaseStore(topic.settings.releases_dir)

    assert serving_of(topic.releases, store) == "old"
    assert "release ghost is announced and not in the store: old serves" in caplog.text
    put(topic, now(topic))
    assert topic.releases.id == "taste-1"


def test_going_back_passes_over_what_is_nowhere(topic: MemoryTopic) -> None:
    store = FolderReleaseStore(topic.settings.releases_dir)
    topic.take("ghost-1", "serving")
    topic.take("ghost-2", "serving")

    asyncio.run(rollback(topic, store))  # type: ignore[arg-type]
    assert topic.releases.id == "base-0"


def test_where_nothing_that_served_is_there_it_is_said(make_settings) -> None:
    topic = MemoryTopic(make_settings())
    topic.take("ghost", "serving")

    with pytest.raises(ReleaseError, match="neither it nor one before it is in the store"):
        serving_of(topic.releases, FolderReleaseStore(topic.settings.releases_dir))


def test_roles_that_are_away_are_an_error_that_may_pass(topic: MemoryTopic) -> None:
    topic.away = True

    with pytest.raises(ReleaseNotReady, match="was not ready within"):
        put(topic, now(topic), within_s=0.05)
    assert topic.releases.id == "base-0"


def test_an_announcement_that_does_not_come_back_is_waited_for_no_longer(
    topic: MemoryTopic,
) -> None:
    topic.lost = True

    with pytest.raises(ReleaseNotReady, match="its announcement does not come back"):
        put(topic, now(topic), within_s=0.05)
    assert topic.releases.id == "base-0"


@pytest.mark.parametrize(("within_s", "waited"), [(0.0, "0 s"), (None, "0.2 s")])
def test_a_topic_that_cannot_be_read_is_waited_for_as_long_as_was_asked(
    make_settings, within_s: float | None, waited: str
) -> None:
    settings = make_settings(kafka={"bootstrap": "127.0.0.1:1", "answer_within_s": 0.2})

    async def opened() -> None:
        async with releases_topic(settings, within_s):
            pass

    with pytest.raises(StackError, match=f"releases at .* cannot be read within {waited}; "):
        asyncio.run(opened())
