"""What the four roles have in common: how one starts, serves health, works, drains and closes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack

from models.settings import Settings
from streams.health import HealthServer
from streams.kafka.topics import ensure_topics
from streams.metrics import RoleMetrics
from streams.service import until_stopped, working


class StreamRole(ABC):
    """A role from its start to its end; roles differ in what they connect, do and drain."""

    def __init__(self, name: str, settings: Settings, metrics: RoleMetrics, port: int) -> None:
        """Nothing is connected yet; health will be served on `port`."""
        self._name, self._settings = name, settings
        self._health = HealthServer(settings.metrics.host, port, metrics, self.not_ready)

    async def run(self, stop: asyncio.Event, *, served: bool = True) -> None:
        """Run until `stop` is set or the work ends, then drain. Raises what ended the work.

        Health comes first, so that it says what the rest waits for. Without `served` there is
        none, and topics are not made: for a command that needs a role for a while.
        """
        async with AsyncExitStack() as closing:  # in reverse order, however the work has ended
            with working(self._name, stop):
                if served:
                    await self._health.start(stop)
                    closing.push_async_callback(self._health.stop)
                    await until_stopped(stop, ensure_topics(self._settings))
                await until_stopped(stop, self.connect(closing))
                if stop.is_set():
                    return
                await self.work(stop)
            await self.drain()

    @abstractmethod
    def not_ready(self) -> str | None:
        """Why no work is being done; None if it is. Called on the event loop."""

    @abstractmethod
    async def connect(self, closing: AsyncExitStack) -> None:
        """Connect to Kafka and load what is needed; how that is closed again goes to `closing`."""

    @abstractmethod
    async def work(self, stop: asyncio.Event) -> None:
        """Work until `stop`. Raises what ended the work before that."""

    async def drain(self) -> None:
        """Finish what is under way, if closing does not; only if the work has not failed."""
        return
