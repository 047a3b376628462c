from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiokafka.errors import KafkaTimeoutError

from streams.tracker import outbox as module
from streams.tracker.outbox import Outbox


@dataclass
class Sent:
    partition: int
    offset: int


class Broker:
    """Takes records in order; refuses the first `failures` ones."""

    def __init__(self, failures: int = 0) -> None:
        self.log: list[tuple[bytes, bytes | None]] = []
        self.failures = failures

    async def send(self, topic, value, key, partition):
        future = asyncio.get_running_loop().create_future()
        if self.failures:
            self.failures -= 1
            future.set_exception(KafkaTimeoutError())
        else:
            self.log.append((key, value))
            future.set_result(Sent(partition, len(self.log) - 1))
        return future


def test_records_are_sent_in_order_and_of_a_key_only_the_last_value():
    broker, persisted = Broker(), []

    async def scenario() -> None:
        outbox = Outbox("t", broker, lambda offsets, size: persisted.append((offsets, size)))
        for key, value in ((b"a", b"1"), (b"b", b"22"), (b"a", b"333")):
            outbox.put(0, key, value)
        await outbox.flushed()

    asyncio.run(scenario())
    assert broker.log == [(b"b", b"22"), (b"a", b"333")]
    assert persisted == [({0: 1}, 7)]


def test_flushed_waits_for_what_was_put_while_sending():
    broker = Broker()

    async def scenario() -> None:
        outbox = Outbox("t", broker, lambda *_: None)
        outbox.put(0, b"a", b"1")
        first = asyncio.create_task(outbox.flushed())
        await asyncio.sleep(0)
        outbox.put(0, b"b", None)
        await outbox.flushed()
        await first

    asyncio.run(scenario())
    assert broker.log == [(b"a", b"1"), (b"b", None)]


def test_records_that_were_refused_are_sent_again_under_newer_values(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    broker = Broker(failures=1)

    async def scenario() -> None:
        outbox = Outbox("t", broker, lambda *_: None)
        outbox.put(0, b"a", b"1")
        outbox.put(0, b"b", b"1")
        await asyncio.sleep(0)
        outbox.put(0, b"a", b"2")
        await outbox.flushed()

    asyncio.run(scenario())
    assert dict(broker.log) == {b"a": b"2", b"b": b"1"}
    assert broker.log[-1] == (b"a", b"2")
