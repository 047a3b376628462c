"""What Faust passed over: records between the last one applied and the next one delivered.

While a rebalance is under way Faust drops fetched records, counts them as read, and goes back to
the committed offsets; where the two meet in the wrong order, dropped records come no second time
and are committed as a gap (seen after a broker's restart). So the tracker goes by its own offsets:
what is missing before a batch is read from the topic, by a consumer of its own. Offsets that hold
no record (transaction markers, compaction) cost one fetch and give nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from aiokafka import ConsumerRecord, TopicPartition

from models.settings import Settings
from streams.kafka.read_at import Rereader
from streams.tracker.runtime import DeliveredRecord

log = logging.getLogger(__name__)

POLL_MS = 500
_place = attrgetter("partition", "offset")


class GapReader:
    """Completes batches of one worker's topics."""

    def __init__(self, settings: Settings) -> None:
        self._reader = Rereader(settings)
        self._reading = asyncio.Lock()  # agents come one at a time: there is one consumer

    async def complete(
        self, rows: Sequence[DeliveredRecord], due: Mapping[int, int]
    ) -> AsyncIterator[list[DeliveredRecord]]:
        """The batch (of one topic) with what is missing before and among its rows.

        A gap may be as long as the topic, so that it comes in slices, each of one partition and
        no longer than one fetch; what is then left of the batch comes last and together. Each
        list is in order of partition and offset.

        `due`: partition → the offset that should come next; else the partition's first is it.
        """
        rest: list[DeliveredRecord] = []
        for _, one in groupby(sorted(rows, key=_place), key=attrgetter("partition")):
            part = list(one)
            begin = _first_gap(part, due.get(part[0].partition, part[0].offset))
            if begin is None:
                rest += part
            else:
                async for slice_ in self._completed(part, begin):
                    yield slice_
        if rest:
            yield rest

    async def _completed(
        self, part: list[DeliveredRecord], begin: int
    ) -> AsyncIterator[list[DeliveredRecord]]:
        """One partition's rows with what the topic still holds of the gaps from `begin` on."""
        place, known = TopicPartition(part[0].topic, part[0].partition), {r.offset for r in part}
        async for found, upto in self.between(place, begin, part[-1].offset):
            missing = [row for row in found if row.offset not in known]
            before, part = _split(part, upto)
            if before or missing:
                yield sorted([*before, *missing], key=_place)
        if part:
            yield part

    async def between(
        self, place: TopicPartition, first: int, end: int
    ) -> AsyncIterator[tuple[list[DeliveredRecord], int]]:
        """What the topic still holds of first ≤ offset < end: slices, each with where it ends."""
        told = False
        while first < end:
            found, first = await self._fetched(place, first, end)
            if found and not told:
                told = True
                log.warning(
                    "%s/%d: offsets from %d on were passed over and are read again",
                    *(place.topic, place.partition, found[0].offset),
                )
            yield found, first

    async def _fetched(
        self, place: TopicPartition, first: int, end: int
    ) -> tuple[list[DeliveredRecord], int]:
        """Records with first ≤ offset < end that the topic still holds, and where to read on."""
        async with self._reading:
            reader = await self._reader.at(place, first)
            batch: Sequence[ConsumerRecord] = ()
            while (until := await reader.position(place)) == first:
                batch = (await reader.getmany(place, timeout_ms=POLL_MS)).get(place, ())
        return [_row_of(one) for one in batch if one.offset < end], min(until, end)

    async def range(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset that a partition holds, and the one after its last.

        Not by Faust's consumer: there the question would wait behind a fetch, for 1.5 s.
        """
        async with self._reading:
            return await self._reader.range(TopicPartition(topic, partition))

    async def stop(self) -> None:
        """Leave the broker; may be called twice."""
        await self._reader.stop()


def _first_gap(part: Sequence[DeliveredRecord], expected: int) -> int | None:
    """Where the first offset is missing; rows that are delivered again leave no gap."""
    for row in part:
        if row.offset > expected:
            return expected
        expected = max(expected, row.offset + 1)
    return None


def _split(
    part: list[DeliveredRecord], offset: int
) -> tuple[list[DeliveredRecord], list[DeliveredRecord]]:
    """The rows before `offset`, and the others."""
    return [row for row in part if row.offset < offset], [r for r in part if r.offset >= offset]


def _row_of(record: ConsumerRecord) -> DeliveredRecord:
    return DeliveredRecord(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )
