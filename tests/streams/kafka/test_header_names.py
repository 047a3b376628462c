"""Batches with header names that are no text are read like all others."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from streams.kafka.aiokafka_repairs import _Records


class AnyBytes(str):
    """A header name as librdkafka sends it."""

    def encode(self, *_: str) -> bytes:
        return b"\xff\xfename"


def batch(*names: str, codec: int = 0) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, codec, False, -1, -1, -1, 100_000)
    for offset, name in enumerate(names):
        builder.append(offset, 1_700_000_000_000, b"k", b"v" * 50, [(name, b"h"), ("b", None)])
    return bytes(builder.build())


@pytest.mark.parametrize("codec", [0, 1])
def test_every_record_of_a_batch_is_read_in_order(codec: int) -> None:
    records = _Records(batch("a", "a", AnyBytes("x"), "c", codec=codec) + batch("d"))
    found = []
    while records.has_next():
        one = records.next_batch()
        assert one.validate_crc()
        assert not one.is_control_batch
        found += [(record.offset, record.headers[0][0], record.value) for record in one]
    assert [(offset, value) for offset, _, value in found] == [
        *((n, b"v" * 50) for n in range(4)),
        (0, b"v" * 50),
    ]
    assert [name for _, name, _ in found] == ["a", "a", "\ufffd\ufffdname", "c", "d"]


def test_no_batch_is_the_end() -> None:
    assert not _Records(b"").has_next()
