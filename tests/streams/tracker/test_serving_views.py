"""Derived views that cannot be read are said to be so, until they can."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.errors import VectorIndexError
from models.fakes import MemoryIndex
from models.ports import VectorRow
from models.schemas import ReleaseAnnouncement
from streams.metrics import TrackerMetrics
from streams.tracker.serving_views import ServingViews
from tests.conftest import MakeSettings
from tests.streams.clients import until


class Damaged(MemoryIndex):
    """One whose tables cannot be read while `damaged` is set."""

    damaged = True

    def newer_than(self, table: str, sequence: int) -> list[VectorRow]:
        if self.damaged:
            raise VectorIndexError(f"table {table!r} is damaged")
        return super().newer_than(table, sequence)


def test_what_is_damaged_is_named_and_taken_up_when_it_is_whole(
    make_settings: MakeSettings,
) -> None:
    index = Damaged()
    index.upsert("items@base-0", [VectorRow("tea", np.ones(4, np.float32), "tea", 0, {})])
    settings = make_settings(ranking={"refresh_s": 0.01})

    async def run() -> None:
        derived = ServingViews(settings, index, TrackerMetrics(CollectorRegistry()))
        derived.release.take(ReleaseAnnouncement(release="base-0", status="serving", at=10**12))
        refreshing = asyncio.create_task(derived.keep_fresh())
        await until(lambda: derived.problem == "table 'items@base-0' is damaged")
        assert derived.shelf is None
        index.damaged = False
        await until(lambda: derived.shelf is not None)
        await until(lambda: derived.problem is None)
        refreshing.cancel()
        await asyncio.gather(refreshing, return_exceptions=True)

    asyncio.run(run())


def derived_of(
    make_settings: MakeSettings, index: MemoryIndex, *steps: tuple[str, str]
) -> ServingViews:
    derived = ServingViews(make_settings(), index, TrackerMetrics(CollectorRegistry()))
    take(derived, *steps)
    return derived


def take(derived: ServingViews, *steps: tuple[str, str]) -> None:
    for release, status in steps:
        step = ReleaseAnnouncement.model_validate(
            {"release": release, "status": status, "at": 10**12}
        )
        derived.release.take(step)


def filled(*releases: str) -> MemoryIndex:
    index = MemoryIndex()
    for release in releases:
        rows = [VectorRow("tea", np.ones(4, np.float32), release, 0, {})]
        index.upsert(f"items@{release}", rows)
    return index


BASE = (("base-0", "items-ready"), ("base-0", "serving"))


def test_after_a_restart_too_the_release_before_one_that_is_nowhere_serves(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    index = filled("base-0")
    derived = derived_of(make_settings, index, *BASE, ("ghost", "serving"))
    derived.refresh()
    derived.refresh()
    assert derived.release_of_lists == "base-0"
    assert derived.not_ready is None
    (line,) = caplog.messages
    assert "release ghost is announced as serving" in line
    assert "base-0 serves on" in line


def test_a_release_that_comes_late_is_taken_up_when_its_items_are_whole(
    make_settings: MakeSettings,
) -> None:
    index = filled("base-0")
    derived = derived_of(make_settings, index, *BASE, ("late", "serving"))
    derived.refresh()
    index.upsert("items@late", [VectorRow("tea", np.ones(4, np.float32), "tea", 0, {})])
    derived.refresh()
    assert derived.release_of_lists == "base-0"
    take(derived, ("late", "items-ready"))
    derived.refresh()
    assert derived.release_of_lists == "late"


def test_with_none_that_can_be_served_it_is_not_ready_and_says_so(
    make_settings: MakeSettings,
) -> None:
    derived = derived_of(make_settings, filled(), ("ghost", "serving"))
    derived.refresh()
    assert derived.shelf is None
    assert "items of release ghost" in (derived.not_ready or "")


def test_a_first_release_without_any_items_serves(make_settings: MakeSettings) -> None:
    derived = derived_of(make_settings, filled(), *BASE)
    derived.refresh()
    assert derived.release_of_lists == "base-0"
    assert derived.not_ready is None


def test_a_serving_release_goes_on_while_its_table_is_made_anew(
    make_settings: MakeSettings,
) -> None:
    index = filled("base-0", "next-1")
    derived = derived_of(
        make_settings, index, *BASE, ("next-1", "items-ready"), ("next-1", "serving")
    )
    derived.refresh()
    index.drop("items@next-1")
    derived.refresh()
    assert derived.release_of_lists == "next-1"
