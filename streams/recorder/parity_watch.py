"""Parity as a metric: what is logged while the recorder runs is checked now and then.

A check reads much of the log, so it runs in a process of its own, which neither delays the
recorder nor keeps memory between checks, and never for more than a twentieth of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Final

from models.errors import PalateError
from models.settings import Settings
from streams.event_log import SegmentLog
from streams.metrics import RecorderMetrics
from streams.parity import ParityReport, check_parity

log = logging.getLogger(__name__)

REST_PER_WORK: Final = 19.0  # seconds of rest for a second of checking
REQUESTS: Final = "profile-requests"

LogOffsets = dict[int, int]  # partition → offset of the first request that is not checked yet


async def watch_parity(settings: Settings, metrics: RecorderMetrics) -> None:
    """Check every `log.parity_every_s` what was logged since; runs until it is cancelled.

    A log that cannot be read is said each time: a metric that stands still looks like parity.
    """
    positions: LogOffsets | None = None
    while True:
        began = time.monotonic()
        try:
            positions = await _check_from(positions, settings, metrics)
        except (PalateError, OSError) as error:
            log.warning("parity was not checked: %s", error)
        except Exception:  # it watches: recording goes on without it
            log.exception("parity was not checked because of a defect")
        took = time.monotonic() - began
        await asyncio.sleep(max(settings.log.parity_every_s, took * REST_PER_WORK))


async def _check_from(
    positions: LogOffsets | None, settings: Settings, metrics: RecorderMetrics
) -> LogOffsets:
    """Check and count what was logged from `positions` on (None: nothing yet); where it ended."""
    ends = _ends(settings)
    if positions is None or ends == positions:
        return ends
    report = await check_aside(settings, positions)
    if report is None:
        return positions
    count(report, metrics)
    return ends


def count(report: ParityReport, metrics: RecorderMetrics) -> None:
    """Add a report to the metrics; the first mismatch is logged, `palate check parity` has all."""
    metrics.parity_checked.inc(report.requests + report.profiles)
    metrics.parity_mismatches.inc(report.mismatch_count)
    for found in report.mismatches[:1]:
        log.error(
            "parity: %d mismatches, the first in %s: %s; see them all: palate check parity",
            *(report.mismatch_count, found.kind, found.detail),
            extra={"topic": found.topic, "partition": found.partition, "offset": found.offset},
        )


async def check_aside(settings: Settings, positions: LogOffsets) -> ParityReport | None:
    """The report on requests from `positions` on, made by a new process; None if that failed."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(
        target=_check, args=(settings, positions, theirs), name="parity", daemon=True
    )
    child.start()
    theirs.close()
    try:
        found: ParityReport | str = await asyncio.to_thread(ours.recv)
    except EOFError:
        found = "its process ended"
    finally:
        child.terminate()  # also where this task was cancelled in the middle of a check
        await asyncio.to_thread(child.join)
    if isinstance(found, str):
        log.warning("parity was not checked: %s", found)
        return None
    return found


def _check(settings: Settings, positions: LogOffsets, answer: Connection) -> None:
    """In the process of its own."""
    try:
        report: ParityReport | str = check_parity(
            SegmentLog.of(settings), settings, _everywhere(settings, positions)
        )
    except PalateError as error:
        report = str(error)
    with contextlib.suppress(BrokenPipeError):  # the recorder stops meanwhile
        answer.send(report)


def _everywhere(settings: Settings, positions: LogOffsets) -> LogOffsets:
    return {number: positions.get(number, 0) for number in range(settings.kafka.partitions)}


def _ends(settings: Settings) -> LogOffsets:
    segments = SegmentLog.of(settings)
    return {
        number: segments.next_offset(REQUESTS, number) for number in segments.partitions(REQUESTS)
    }
