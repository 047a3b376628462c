"""Sending files to Kafka: in file order, bounded in flight, resumable, paced if asked."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from models.errors import ImportFailed
from models.settings import Settings
from streams.importers.pacing import Pacer
from streams.importers.position import PositionFile
from streams.importers.report import Report
from streams.importers.rows import Kind
from streams.importers.survey import Ready, Survey, survey
from streams.kafka import client_options, producer, start_client
from streams.reach import answers_within
from streams.topics import ensure_topics_within

MAX_IN_FLIGHT: Final = 2_000
CONNECT_S: Final = 20.0
LINGER_MS: Final = 5  # fuller batches; an import is not in a hurry
SAVE_EVERY_S: Final = 0.5
ROWS_PER_TURN: Final = 200


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How files are read and sent; `speed` is event seconds per wall second."""

    kind: Kind
    format: str
    speed: float | None = None
    resume: bool = True
    limit: int | None = None
    encoding: str | None = None


Watcher = Callable[[Survey], None]


async def import_files(
    settings: Settings,
    paths: Sequence[Path],
    options: ImportOptions,
    watch: Watcher = lambda _: None,
) -> list[Report]:
    """Send each file in turn and return its report; `watch` is called as rows go out.

    Raises ImportFailed when a file cannot be read on or the broker stops acknowledging; what was
    acknowledged until then is remembered, and the next call goes on from there.
    """
    sender, cluster = await _connect(settings)
    pacer = Pacer(options.speed) if options.speed else None
    try:
        return [
            await _import_file(settings, sender, cluster, path, options, pacer, watch)
            for path in paths
        ]
    finally:
        await sender.stop()


async def _connect(settings: Settings) -> tuple[AIOKafkaProducer, str]:
    """A started producer and the cluster's id, by which a broker set up anew is told apart.

    Raises StackError saying why if the cluster cannot be reached.
    """
    await ensure_topics_within(settings, CONNECT_S)
    async with answers_within(settings, CONNECT_S):
        admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
        try:
            cluster = str((await admin.describe_cluster())["cluster_id"])
        finally:
            await admin.close()
        return await start_client(lambda: producer(settings, linger_ms=LINGER_MS)), cluster


async def _import_file(
    settings: Settings,
    sender: AIOKafkaProducer,
    cluster: str,
    path: Path,
    options: ImportOptions,
    pacer: Pacer | None,
    watch: Watcher,
) -> Report:
    opened = survey(path, options.kind, options.format, options.encoding, options.limit)
    topic = settings.topic(options.kind)
    file = PositionFile(
        settings.data_dir / "imports", path, options.format, options.kind, topic, cluster
    )
    if not options.resume:
        file.forget()
    start = file.load()
    opened.report.resumed_after = start
    flight = _Flight(sender, topic, file, start, opened.report)
    try:
        async for message in _in_time(opened, pacer, start, watch):
            await flight.send(message)
    finally:
        await flight.land()
    file.save(max(start, opened.report.rows))  # the last rows may have been unusable
    watch(opened)
    return opened.report


async def _in_time(
    opened: Survey, pacer: Pacer | None, after_row: int, watch: Watcher
) -> AsyncIterator[Ready]:
    """The messages after `after_row`, each when it is due; reading never starves the loop."""
    for message in opened.messages:
        if message.row % ROWS_PER_TURN == 0:
            watch(opened)
            await asyncio.sleep(0)
        if message.row <= after_row:
            continue
        if pacer and message.event_time is not None:
            wait = pacer.wait_s(message.event_time, time.monotonic())
            if wait > 0:
                watch(opened)
                await asyncio.sleep(wait)
        yield message


class _Flight:
    """Messages sent and not yet acknowledged, oldest first."""

    def __init__(
        self, sender: AIOKafkaProducer, topic: str, file: PositionFile, start: int, report: Report
    ) -> None:
        self._sender = sender
        self._topic = topic
        self._file = file
        self._report = report
        self._waiting: deque[tuple[int, asyncio.Future[Any]]] = deque()
        self._saved = self._acknowledged = start
        self._saved_at = time.monotonic()

    async def send(self, message: Ready) -> None:
        """Hand one message to the producer; wait while too many are unacknowledged."""
        try:
            future = await self._sender.send(self._topic, message.value, message.key)
        except KafkaError as error:
            raise self._refused(message.row, error) from error
        self._waiting.append((message.row, future))
        while self._waiting and (self._waiting[0][1].done() or len(self._waiting) > MAX_IN_FLIGHT):
            await self._settle_oldest()
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self._save()

    async def land(self) -> None:
        """Wait for every acknowledgement and save how far they reach, whatever happens."""
        try:
            while self._waiting:
                await self._settle_oldest()
        finally:
            self._save()

    async def _settle_oldest(self) -> None:
        row, future = self._waiting[0]
        try:
            await asyncio.shield(future)  # interrupted or not, the broker will answer
        except KafkaError as error:
            raise self._refused(row, error) from error
        self._waiting.popleft()
        self._acknowledged = row
        self._report.sent += 1

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._acknowledged > self._saved:
            self._file.save(self._acknowledged)
            self._saved = self._acknowledged

    def _refused(self, row: int, error: KafkaError) -> ImportFailed:
        return ImportFailed(
            f"{self._report.path}, row {row}: the broker did not acknowledge it on topic "
            f"{self._topic} ({type(error).__name__}: {error}); all rows up to "
            f"{self._acknowledged} are there: run the same command again to go on"
        )
