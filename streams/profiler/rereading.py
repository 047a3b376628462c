"""Reading one request again from its place in the topic."""

from __future__ import annotations

import asyncio
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from models.errors import TopicError
from models.settings import Settings
from streams.kafka.read_at import Rereader
from streams.profiler.version import RecordPosition

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
