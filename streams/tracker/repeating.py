"""Work that a loop of the tracker does again and again, and goes on with after what passes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiokafka.errors import KafkaError

from models.errors import PartitionLost, VectorIndexError
from streams.kafka.clients import RETRY_S

log = logging.getLogger(__name__)


async def every(
    seconds: float, work: Callable[[], Awaitable[None]], sooner: asyncio.Event | None = None
) -> None:
    """Do `work` every so many seconds, at once when `sooner` is set; after a failure not sooner.

    All others have a turn between two times: what `work` cannot do for want of a partition stays
    owed and sets `sooner` again, and only they can give the partition back or take it over.
    """
    while True:
        try:
            await work()
        except PartitionLost as lost:  # what was owed is read from the state again
            log.debug("%s", lost)
            await asyncio.sleep(seconds)
        except KafkaError as error:  # what was owed still is
            log.warning("Kafka does not take what is owed now (%r); trying on", error)
            await asyncio.sleep(RETRY_S)
        except VectorIndexError as error:  # of a catalogue too large to keep in memory
            log.warning("the vector index does not answer now (%s); trying on", error)
            await asyncio.sleep(RETRY_S)
        await asyncio.sleep(0)
        await _set_or_over(sooner, seconds)


async def _set_or_over(event: asyncio.Event | None, seconds: float) -> None:
    """Wait until the event is set, at most `seconds`; clears it."""
    event = event or asyncio.Event()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()
