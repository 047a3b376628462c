"""Sending files to Kafka: in file order, bounded in flight, resumable, paced if asked."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, KafkaTimeoutError

from models.durable import replacing
from models.errors import ImportFailed
from models.identity import digest
from models.settings import Settings
from streams.importers.cells import CellOptions
from streams.importers.dates import DateOrder
from streams.importers.report import ImportReport, printable
from streams.importers.rows import Kind
from streams.importers.survey import Ready, Survey, survey
from streams.kafka.clients import (
    client_options,
    producer,
    start_client,
    until_answered,
    worth_another_try,
)
from streams.kafka.connectivity import answers_within
from streams.kafka.topics import ensure_topics_within

log = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 2_000
CONNECT_S: Final = 20.0
LINGER_MS: Final = 5  # fuller batches; an import is not in a hurry
SAVE_EVERY_S: Final = 0.5
ROWS_PER_TURN: Final = 200
LONG_S: Final = 60.0  # before so long a wait it is looked whether the rows behind are due sooner
ROWS_AHEAD: Final = 1_000  # that are looked at
SILENT_S: Final = 5.0  # without an acknowledgement: what is waited for is said
LOOK_EVERY_S: Final = 1.0
GIVE_UP_S: Final = 5.0  # of acknowledgements, once the import has ended otherwise


class PositionFile:
    """How far into a file an import has come, kept on disk so that it can be resumed: the row up to
    which the broker has acknowledged every usable row.

    A file that has changed since is another import.
    """

    def __init__(self, folder: Path, source: Path, *identity: str) -> None:
        """`identity`: how it is read, and which topic on which cluster it goes to."""
        state = source.stat()
        resolved = printable(str(source.resolve()))
        name = digest(resolved, state.st_size, state.st_mtime_ns, identity, chars=16)
        stem = re.sub(r"[^\w.-]", "_", source.name)[:80]
        self.path = folder / f"{stem}-{name}.json"
        self._source = resolved

    def load(self) -> int:
        """The saved row, 0 for none. Raises ImportFailed if it cannot be read."""
        if not self.path.exists():
            return 0
        try:
            return int(orjson.loads(self.path.read_bytes())["row"])
        except (OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ImportFailed(
                f"{self.path}: the saved position cannot be read ({error}); "
                "start the file anew with --restart"
            ) from error

    def forget(self) -> None:
        """Begin at the first row next time."""
        self.path.unlink(missing_ok=True)

    def save(self, row: int) -> None:
        """Replace the saved row, durably."""
        with replacing(self.path) as draft:
            draft.write_bytes(orjson.dumps({"row": row, "file": self._source}))


class Pacer:
    """Tells how long to wait so that event time runs `speed` times as fast as wall time.

    The first event sets both clocks' zero. An event earlier than that, or late, does not wait;
    nor should one that is out of order: one wrong clock would hold everybody else up for years.
    Pure: both clocks are arguments.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._zero: tuple[int, float] | None = None

    def wait_s(self, event_ms: int, wall_s: float) -> float:
        """Seconds from `wall_s` until the event is due; 0 if it is."""
        if self._zero is None:
            self._zero = (event_ms, wall_s)
        first_ms, first_s = self._zero
        due = first_s + (event_ms - first_ms) / 1000 / self._speed
        return max(0.0, due - wall_s)

    def is_out_of_order(self, event_ms: int, later_rows: Iterable[Ready]) -> bool:
        """Whether rows behind the event in the file are due more than LONG_S before it."""
        first = event_ms - LONG_S * 1000 * self._speed
        return any(row.event_time is not None and row.event_time < first for row in later_rows)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How files are read and sent; `speed` is event seconds per wall second."""

    kind: Kind
    format: str
    speed: float | None = None
    resume: bool = True
    limit: int | None = None
    encoding: str | None = None
    dates: DateOrder | None = None

    def reading(self, settings: Settings) -> CellOptions:
        """How cells are read."""
        return CellOptions(frozenset(map(str.lower, settings.importer.absent_words)), self.dates)


Watcher = Callable[[Survey], None]


async def import_files(
    settings: Settings,
    paths: Sequence[Path],
    options: ImportOptions,
    watch: Watcher = lambda _: None,
) -> list[ImportReport]:
    """Send each file in turn and return its report; `watch` is called as rows go out.

    While the broker is away it waits, and says so. Raises ImportFailed when a file cannot be read
    on or the broker refuses a row for good; what was acknowledged until then is remembered, and
    the next call resumes there.
    """
    sender, cluster = await _connect(settings)
    pacer = Pacer(options.speed) if options.speed else None
    try:
        return [
            await _import_file(settings, sender, cluster, path, options, pacer, watch)
            for path in paths
        ]
    finally:
        with suppress(TimeoutError):  # of a broker that is away
            async with asyncio.timeout(GIVE_UP_S):
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
) -> ImportReport:
    opened = survey(
        path,
        options.kind,
        options.format,
        options.encoding,
        options.limit,
        options.reading(settings),
    )
    watch(opened)
    topic = settings.topic(options.kind)
    read_as = (part for part in (options.encoding, options.dates) if part)
    file = PositionFile(
        settings.data_dir / "imports",
        path,
        *(options.format, options.kind, topic, cluster, *read_as),
    )
    if not options.resume:
        file.forget()
    start = file.load()
    opened.report.resumed_after = start
    flight = _Flight(sender, topic, file, start, opened.report)
    async with flight.watched(settings.kafka.bootstrap):
        try:
            async for message in _in_time(opened, pacer, start, watch):
                await flight.send(message)
        except BaseException:
            await flight.land(GIVE_UP_S)
            raise
        await flight.land()
    file.save(max(start, opened.report.rows))  # the last rows may have been unusable
    watch(opened)
    return opened.report


async def _in_time(
    opened: Survey, pacer: Pacer | None, after_row: int, watch: Watcher
) -> AsyncIterator[Ready]:
    """The messages after `after_row`, each when it is due; reading never starves the loop."""
    rows = RowsAhead(opened.messages)
    for message in rows:
        if message.row % ROWS_PER_TURN == 0:
            watch(opened)
            await asyncio.sleep(0)
        if message.row <= after_row:
            continue
        if pacer and message.event_time is not None:
            wait = pacer.wait_s(message.event_time, time.monotonic())
            if wait > LONG_S and pacer.is_out_of_order(message.event_time, rows.ahead()):
                wait = 0.0
            if wait > 0:
                watch(opened)
                await asyncio.sleep(wait)
        yield message


class RowsAhead:
    """The messages of a file, some of which may be looked at before their turn."""

    def __init__(self, messages: Iterator[Ready], most: int = ROWS_AHEAD) -> None:
        self._messages, self._most = messages, most
        self._ahead: deque[Ready] = deque()

    def __iter__(self) -> Iterator[Ready]:
        while True:
            if self._ahead:
                yield self._ahead.popleft()
            elif (message := next(self._messages, None)) is not None:
                yield message
            else:
                return

    def ahead(self) -> Sequence[Ready]:
        """The next `most` messages, or all that are left."""
        self._ahead.extend(islice(self._messages, self._most - len(self._ahead)))
        return self._ahead


class _Flight:
    """Messages sent and not yet acknowledged, oldest first."""

    def __init__(
        self,
        sender: AIOKafkaProducer,
        topic: str,
        file: PositionFile,
        start: int,
        report: ImportReport,
    ) -> None:
        self._sender = sender
        self._topic = topic
        self._file = file
        self._report = report
        self._waiting: deque[tuple[Ready, asyncio.Future[Any]]] = deque()
        self._saved = self._acknowledged = start
        self._saved_at = time.monotonic()

    async def send(self, message: Ready) -> None:
        """Hand one message to the producer; wait while too many are unacknowledged."""
        self._waiting.append((message, await self._handed_over(message)))
        while self._waiting and (self._waiting[0][1].done() or len(self._waiting) > MAX_IN_FLIGHT):
            await self._settle_oldest()
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self._save()

    async def land(self, within_s: float | None = None) -> None:
        """Wait for every acknowledgement and save how far they reach, whatever happens.

        After `within_s` the rest is left to the next import, which sends it again.
        """
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    while self._waiting:
                        await self._settle_oldest()
        finally:
            self._save()

    @asynccontextmanager
    async def watched(self, cluster: str) -> AsyncIterator[None]:
        """Inside, a silence of the broker is said, and its end."""
        watching = asyncio.create_task(self._watch(cluster))
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self, cluster: str) -> None:
        row, since, silent = 0, time.monotonic(), False
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            oldest = next((m.row for m, future in self._waiting if not future.done()), 0)
            if oldest != row:
                if silent:
                    log.warning("Kafka at %s answers again: the import resumes", cluster)
                row, since, silent = oldest, time.monotonic(), False
            elif row and not silent and time.monotonic() - since > SILENT_S:
                silent = True
                log.warning(
                    "%s: waiting for Kafka at %s to acknowledge row %d; the import resumes when "
                    "it answers (`palate up` starts it), Ctrl-C keeps what is acknowledged",
                    *(self._report.path, cluster, row),
                )

    async def _handed_over(self, message: Ready) -> asyncio.Future[Any]:
        while True:
            try:
                return await until_answered(
                    f"sending to {self._topic}",
                    lambda: self._sender.send(self._topic, message.value, message.key),
                )
            except KafkaTimeoutError:
                continue  # the batch before is full and not acknowledged: `_watch` says so
            except KafkaError as error:
                raise self._refused(message.row, error) from error

    async def _settle_oldest(self) -> None:
        message, future = self._waiting[0]
        try:
            await asyncio.shield(future)
        except KafkaError as error:
            if not worth_another_try(error):
                raise self._refused(message.row, error) from error
            self._waiting[0] = (message, await self._handed_over(message))
            return
        self._waiting.popleft()
        self._acknowledged = message.row
        self._report.sent += 1

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._acknowledged > self._saved:
            self._file.save(self._acknowledged)
            self._saved = self._acknowledged

    def _refused(self, row: int, error: KafkaError) -> ImportFailed:
        return ImportFailed(
            f"{self._report.path}, row {row}: the broker refused it on topic "
            f"{self._topic} ({type(error).__name__}: {error}); all rows up to "
            f"{self._acknowledged} are there: run the same command again to resume"
        )
