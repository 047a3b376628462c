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
        views = ServingViews(settings, index, TrackerMetrics(CollectorRegistry()))
        views.release.take(ReleaseAnnouncement(release="base-0", status="serving", at=10**12))
        refreshing = asyncio.create_task(views.keep_fresh())
        await until(lambda: views.problem == "table 'items@base-0' is damaged")
        assert views.snapshot is None
        index.damaged = False
        await until(lambda: views.snapshot is not None)
        await until(lambda: views.problem is None)
        refreshing.cancel()
        await asyncio.gather(refreshing, return_exceptions=True)

    asyncio.run(run())


def derived_of(
    make_settings: MakeSettings, index: MemoryIndex, *steps: tuple[str, str]
) -> ServingViews:
    views = ServingViews(make_settings(), index, TrackerMetrics(CollectorRegistry()))
    take(views, *steps)
    return views


def take(views: ServingViews, *steps: tuple[str, str]) -> None:
    for release, status in steps:
        step = ReleaseAnnouncement.model_validate(
            {"release": release, "status": status, "at": 10**12}
        )
        views.release.take(step)


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
    views = derived_of(make_settings, index, *BASE, ("ghost", "serving"))
    views.refresh()
    views.refresh()
    assert views.release_of_lists == "base-0"
    assert views.not_ready is None
    (line,) = caplog.messages
    assert "release ghost is announced as serving" in line
    assert "base-0 serves on" in line


def test_a_release_that_comes_late_is_taken_up_when_its_items_are_whole(
    make_settings: MakeSettings,
) -> None:
    index = filled("base-0")
    views = derived_of(make_settings, index, *BASE, ("late", "serving"))
    views.refresh()
    index.upsert("items@late", [VectorRow("tea", np.ones(4, np.float32), "tea", 0, {})])
    views.refresh()
    assert views.release_of_lists == "base-0"
    take(views, ("late", "items-ready"))
    views.refresh()
    assert views.release_of_lists == "late"


def test_with_none_that_can_be_served_it_is_not_ready_and_says_so(
    make_settings: MakeSettings,
) -> None:
    views = derived_of(make_settings, filled(), ("ghost", "serving"))
    views.refresh()
    assert views.snapshot is None
    assert "items of release ghost" in (views.not_ready or "")


def test_a_first_release_without_any_items_serves(make_settings: MakeSettings) -> None:
    views = derived_of(make_settings, filled(), *BASE)
    views.refresh()
    assert views.release_of_lists == "base-0"
    assert views.not_ready is None


def test_a_serving_release_goes_on_while_its_table_is_made_anew(
    make_settings: MakeSettings,
) -> None:
    index = filled("base-0", "next-1")
    views = derived_of(
        make_settings, index, *BASE, ("next-1", "items-ready"), ("next-1", "serving")
    )
    views.refresh()
    index.drop("items@next-1")
    views.refresh()
    assert views.release_of_lists == "next-1"
