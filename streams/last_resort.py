"""The last resort: a record with which its role fails becomes a dead letter; work goes on.

It is for work on one record that has no effect outside the process: decoding, applying, making
a row. What writes to a disk, sends to Kafka or asks an engine fails for reasons of its own, with
which every other record would fail too; that is never taken for the fault of a record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from models.errors import PalateError
from streams.codec import Record, Rejected

log = logging.getLogger(__name__)

T = TypeVar("T")
SYSTEMIC: Final = (PalateError, KafkaError, OSError, MemoryError)  # no fault of a record


def failure(error: Exception) -> Rejected:
    """How the dead letter of a record is marked with which its role failed.

    Raises `error` if no record is to blame: Kafka or the disk is away, memory is out, a topic
    or an index is refused.
    """
    of_this_record = isinstance(error, MessageSizeTooLargeError)
    if isinstance(error, SYSTEMIC) and not of_this_record:
        raise error
    if type(error) is Exception:  # RocksDB's errors are bare
        raise error
    return Rejected("failed", repr(error)[:500])


def attempted(record: Record, work: Callable[[], T]) -> T | Rejected:
    """What `work` on this record returns, or `failed`, logged with its traceback."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 (whatever it is, the next record is worked on)
        rejected = failure(error)
        log_failure(record, error)
        return rejected


def log_failure(record: Record, error: Exception) -> None:
    """Say which record it was, with the traceback: it is a defect."""
    log.error(
        "%s/%d@%d makes this role fail; it becomes a dead letter",
        *(record.topic, record.partition, record.offset),
        exc_info=error,
    )
