"""Fallback profiles are debts: when the engine is back, their requests are answered again.

A debt is a stored profile marked `fallback`; the profile says where its request lies. So nothing
is owed in memory alone: a restarted profiler finds the same debts in the compacted topic.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from models.errors import TopicError
from models.schemas import ProfileRequest
from models.settings import Settings
from streams.codec import decode
from streams.kafka.read_at import Rereader
from streams.last_resort import failure
from streams.metrics import ProfilerMetrics
from streams.profiler.engine import Engine
from streams.profiler.profile_version import RecordPosition
from streams.profiler.stored_profiles import StoredFallback, StoredProfiles
from streams.profiler.worker import ProfileWorker

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.5


# Reading one request again from its place in the topic.

READ_WITHIN_S: Final = 20.0


class RequestReader:
    """A consumer without a group; reads single records of topic `profile-requests`."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic("profile-requests")
        self._reader = Rereader(settings, auto_offset_reset="none")

    async def read(self, position: RecordPosition) -> ConsumerRecord | None:
        """The record at `position`; None if it has expired.

        Raises TopicError if the broker does not answer in time: try again later.
        """
        place = TopicPartition(self._topic, position.partition)
        reader = await self._reader.at(place, position.offset)
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                record = await reader.getone(place)
        except OffsetOutOfRangeError:
            return None
        except TimeoutError as error:
            raise TopicError(
                f"{self._topic}/{position.partition}@{position.offset} was not read in"
                f" {READ_WITHIN_S:.0f} s; it is tried again"
            ) from error
        return record if record.offset == position.offset else None

    async def stop(self) -> None:
        """Leave the broker; may be called twice."""
        await self._reader.stop()


class FallbackRetry:
    """Answers debts of this profiler's partitions, in the room that new requests leave."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        stored: StoredProfiles,
        worker: ProfileWorker,
        metrics: ProfilerMetrics,
    ) -> None:
        self._engine, self._stored, self._worker = engine, stored, worker
        self._metrics = metrics
        self._reader = RequestReader(settings)

    async def run(self) -> None:
        """Look for debts that are due, for ever."""
        try:
            while True:
                self._metrics.owed.set(self._stored.debts)
                if self._engine.available and not self._worker.waiting:
                    await self._repay_due()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await self._reader.stop()

    async def _repay_due(self) -> None:
        partitions = self._worker.intake.partitions
        for debt in self._stored.due_debts(_wall_ms(), partitions, self._worker.room):
            request = await self._request_of(debt)
            if request is not None:
                self._worker.hold(debt.user_id, self._repay(debt, request))

    async def _request_of(self, debt: StoredFallback) -> ProfileRequest | None:
        try:
            record = await self._reader.read(debt.position)
        except TopicError as error:
            log.warning("%s", error)
            self._stored.postpone(debt, _wall_ms())
            return None
        request = decode(record.value, ProfileRequest) if record else None
        if isinstance(request, ProfileRequest) and request.request_id == debt.request_id:
            return request
        log.warning("the request of user %s has expired; the fallback stays", debt.user_id)
        self._metrics.dropped.labels(reason="expired").inc()
        self._stored.write_off(debt)
        return None

    async def _repay(self, debt: StoredFallback, request: ProfileRequest) -> None:
        try:
            profile = await self._worker.written(request, debt.position)
            if profile.fallback:
                self._stored.postpone(debt, _wall_ms())
            elif self._stored.still_owed(debt):
                await self._worker.publish(profile, request)
        except Exception as error:
            failure(error)
            log.exception("the request of user %s fails; the fallback stays", debt.user_id)
            self._metrics.dropped.labels(reason="failed").inc()
            self._stored.write_off(debt)


def _wall_ms() -> float:
    return time.time() * 1000
