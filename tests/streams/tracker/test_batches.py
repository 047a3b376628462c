"""How many events an agent takes at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from streams.tracker import runtime
from streams.tracker.runtime import BATCH, BEHIND, FETCH_WAIT_MS, _fill, create_app


def event(offset: int) -> SimpleNamespace:
    return SimpleNamespace(message=SimpleNamespace(tp=("interactions", 0), offset=offset))


def worker(end: int) -> SimpleNamespace:
    consumer = SimpleNamespace(last_stable_offset=lambda _tp: end)
    thread = SimpleNamespace(_ensure_consumer=lambda: consumer)
    return SimpleNamespace(consumer=SimpleNamespace(_thread=thread))


async def filled(end: int, ready: int, later: int) -> int:
    """Size of a batch when `ready` events are there and `later` ones follow one by one."""
    queue: asyncio.Queue = asyncio.Queue()
    for offset in range(1, ready):
        queue.put_nowait(event(offset))

    async def follow() -> None:
        for offset in range(ready, ready + later):
            queue.put_nowait(event(offset))
            await asyncio.sleep(0)

    following = asyncio.create_task(follow())
    events = [event(0)]
    await _fill(worker(end), queue, events)
    following.cancel()
    return len(events)


def test_up_to_date_a_batch_is_what_is_ready():
    assert asyncio.run(filled(end=40, ready=3, later=30)) == 3


def test_behind_a_batch_waits_for_more_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(runtime, "FILL_S", 0.5)

    assert asyncio.run(filled(end=BEHIND + 2_000, ready=3, later=30)) == 33


def test_a_batch_has_an_upper_limit():
    assert asyncio.run(filled(end=10**6, ready=BATCH + 500, later=0)) == BATCH


def test_faust_reads_what_is_committed_and_asks_for_no_silent_partitions_for_long(make_settings):
    app = create_app(make_settings(), worker=0)

    async def options() -> tuple[str, int]:
        nothing = dict.fromkeys(("on_partitions_revoked", "on_partitions_assigned"), print)
        consumer = app.transport.create_consumer(print, **nothing)
        made = consumer._new_consumer_thread()._create_worker_consumer(app.transport)
        return made._isolation_level, made._fetch_max_wait_ms

    assert asyncio.run(options()) == ("read_committed", FETCH_WAIT_MS)
