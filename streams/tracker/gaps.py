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
from collections import defaultdict
from collections.abc import Mapping, Sequence

from aiokafka import ConsumerRecord, TopicPartition

from models.settings import Settings
from streams.rereader import Rereader
from streams.tracker.app import Row

log = logging.getLogger(__name__)

POLL_MS = 500


class GapReader:
    """Completes batches of one worker's topics."""

    def __init__(self, settings: Settings) -> None:
        self._reader = Rereader(settings)
        self._reading = asyncio.Lock()  # agents come one at a time: there is one consumer

    async def complete(self, rows: Sequence[Row], due: Mapping[int, int]) -> list[Row]:
        """The batch (of one topic) with what is missing before and among its rows, by offset.

        `due`: partition → the offset that should come next; else the partition's first is it.
        """
        delivered: defaultdict[int, list[Row]] = defaultdict(list)
        for row in rows:
            delivered[row.partition].append(row)
        missing: list[Row] = []
        for partition, part in delivered.items():
            missing += await self._missing(part, due.get(partition, part[0].offset))
        if not missing:
            return list(rows)
        log.warning(
            "%s: %d records were passed over and are read again", rows[0].topic, len(missing)
        )
        return sorted([*rows, *missing], key=lambda row: (row.partition, row.offset))

    async def _missing(self, part: Sequence[Row], expected: int) -> list[Row]:
        """What one partition's rows leave out from `expected` on; one fetch for all gaps."""
        begin = _first_gap(part, expected)
        if begin is None:
            return []
        last, known = part[-1], {row.offset for row in part}
        found = await self._between(last.topic, last.partition, begin, last.offset)
        return [row for row in found if row.offset not in known]

    async def _between(self, topic: str, partition: int, first: int, end: int) -> list[Row]:
        """The records with first ≤ offset < end that the topic still holds, in order."""
        place, found = TopicPartition(topic, partition), []
        async with self._reading:
            reader = await self._reader.at(place, first)
            while await reader.position(place) < end:
                batch = await reader.getmany(place, timeout_ms=POLL_MS)
                found += [_row_of(one) for one in batch.get(place, ()) if one.offset < end]
        return found

    async def range(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset that a partition holds, and the one after its last.

        Not by Faust's consumer: there the question would wait behind a fetch, for 1.5 s.
        """
        async with self._reading:
            return await self._reader.range(TopicPartition(topic, partition))

    async def stop(self) -> None:
        """Leave the broker; may be called twice."""
        await self._reader.stop()


def _first_gap(part: Sequence[Row], expected: int) -> int | None:
    """Where the first offset is missing; rows that are delivered again leave no gap."""
    for row in part:
        if row.offset > expected:
            return expected
        expected = max(expected, row.offset + 1)
    return None


def _row_of(record: ConsumerRecord) -> Row:
    return Row(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )
