"""A role's life: what comes before what, and what comes however the work ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import httpx
import pytest
from prometheus_client import CollectorRegistry

from models.settings import Settings
from streams import role as role_module
from streams.metrics import RecorderMetrics
from streams.role import StreamRole

pytestmark = pytest.mark.anyio


class ARole(StreamRole):
    """Says what it does; `stop_at` a step, or fail there."""

    def __init__(self, settings: Settings, stop_at: str = "work", *, fails: bool = False) -> None:
        metrics = RecorderMetrics(CollectorRegistry())
        super().__init__("recorder", settings, metrics, settings.metrics.recorder_port)
        self.url = f"http://127.0.0.1:{settings.metrics.recorder_port}/readyz"
        self.stop_at, self.fails = stop_at, fails
        self.stop, self.said = asyncio.Event(), []

    def not_ready(self) -> str | None:
        return "not yet"

    async def health(self) -> str:
        try:
            async with httpx.AsyncClient() as client:
                return "unready" if (await client.get(self.url)).status_code == 503 else "ready"
        except httpx.ConnectError:
            return "not served"

    async def step(self, name: str) -> None:
        self.said.append(f"{name}: {await self.health()}")
        if name == self.stop_at and self.fails:
            raise ValueError(name)
        if name == self.stop_at:
            self.stop.set()

    async def connect(self, closing: AsyncExitStack) -> None:
        for name in ("first", "second"):
            closing.push_async_callback(self.step, f"close the {name}")
        await self.step("connect")

    async def work(self, stop: asyncio.Event) -> None:
        assert stop is self.stop
        await self.step("work")

    async def drain(self) -> None:
        await self.step("drain")


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings with which topics were made."""
    made: list[Settings] = []

    async def ensure(settings: Settings) -> None:
        made.append(settings)

    monkeypatch.setattr(role_module, "ensure_topics", ensure)
    return made


async def test_health_is_first_and_last_and_what_was_opened_is_closed_in_reverse(
    make_settings, topics
):
    role = ARole(make_settings())
    await role.run(role.stop)
    assert role.said == [
        "connect: unready",
        "work: unready",
        "drain: unready",
        "close the second: unready",
        "close the first: unready",
    ]
    assert await role.health() == "not served"
    assert topics == [role._settings]


async def test_work_that_failed_is_not_drained_but_closed(make_settings, topics):
    role = ARole(make_settings(), fails=True)
    with pytest.raises(ValueError, match="work"):
        await role.run(role.stop)
    assert [said.split(":")[0] for said in role.said] == [
        *("connect", "work", "close the second", "close the first"),
    ]
    assert role.stop.is_set()
    assert await role.health() == "not served"


async def test_a_role_that_is_stopped_while_it_connects_closes_and_does_no_work(
    make_settings, topics
):
    role = ARole(make_settings(), stop_at="connect")
    await role.run(role.stop)
    assert [said.split(":")[0] for said in role.said] == [
        *("connect", "close the second", "close the first"),
    ]


async def test_a_command_that_needs_a_role_serves_no_health_and_makes_no_topics(
    make_settings, topics
):
    role = ARole(make_settings())
    await role.run(role.stop, served=False)
    assert role.said[1] == "work: not served"
    assert topics == []
