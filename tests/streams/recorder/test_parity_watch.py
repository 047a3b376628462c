from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from models.schemas import ProfileRequest, Windows
from streams.event_log import SegmentLog
from streams.metrics import RecorderMetrics
from streams.recorder import parity_watch
from streams.recorder.parity_watch import check_aside, watch_parity
from streams.windows import windows_hash
from tests.patience import Deadline
from tests.streams.logged import NOW, record, record_of


def request(number: int, **fields) -> ProfileRequest:
    """A request of a user without events, for whom empty windows are right."""
    return ProfileRequest.model_validate(
        {
            **{"request_id": f"r{number}", "user_id": "ann", "number": number, "as_of": NOW},
            **{"applied_offset": -1, "partition": 0, "windows": Windows(), "rule": "edit"},
            **{"windows_hash": windows_hash(Windows()), "staleness": 1.0, "requested_at": NOW},
        }
        | fields
    )


def log_request(settings, offset: int, asked: ProfileRequest) -> None:
    found = [record_of("profile-requests", 0, offset, asked)]
    record(SegmentLog(settings.log_dir), settings, found)


async def until(condition) -> None:
    deadline = Deadline()
    while not condition():
        assert not deadline.over(), "not checked in time"
        await asyncio.sleep(0.05)


@pytest.mark.service  # starts a process for each check
def test_what_is_logged_from_now_on_is_checked_once_and_counted(make_settings, caplog, monkeypatch):
    settings = make_settings(kafka={"partitions": 1}, log={"parity_every_s": 0.05})
    monkeypatch.setattr(parity_watch, "REST_PER_WORK", 0.0)
    metrics = RecorderMetrics(CollectorRegistry())
    log_request(settings, 0, request(0, windows_hash="wrong, but logged before"))

    def counted():
        checked, mismatches = metrics.parity_checked, metrics.parity_mismatches
        return [sample._value.get() for sample in (checked, mismatches)]

    async def run():
        watching = asyncio.create_task(watch_parity(settings, metrics))
        await asyncio.sleep(0)  # it has seen where the log ends
        log_request(settings, 1, request(1))
        await until(lambda: counted() == [1, 0])
        log_request(settings, 2, request(2, windows_hash="wrong"))
        await until(lambda: counted() == [2, 1])
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(run())
    assert "parity: 1 mismatches, the first in hash" in caplog.text


@pytest.mark.service
def test_a_log_that_cannot_be_read_is_said_and_checked_again_later(
    make_settings, caplog, monkeypatch
):
    settings = make_settings(kafka={"partitions": 1}, log={"parity_every_s": 0.05})
    monkeypatch.setattr(parity_watch, "REST_PER_WORK", 0.0)
    metrics = RecorderMetrics(CollectorRegistry())
    log_request(settings, 0, request(0))
    [manifest] = settings.log_dir.rglob("manifest.json")
    whole = manifest.read_bytes()

    async def run():
        watching = asyncio.create_task(watch_parity(settings, metrics))
        await asyncio.sleep(0)  # it has seen where the log ends
        manifest.write_bytes(b'{"version": 99}')
        await until(lambda: caplog.text.count("parity was not checked") >= 2)
        manifest.write_bytes(whole)
        log_request(settings, 1, request(1))
        await until(lambda: metrics.parity_checked._value.get() == 1)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.service
def test_a_check_that_is_cancelled_leaves_no_process(make_settings):
    from multiprocessing import active_children

    settings = make_settings()

    async def run():
        checking = asyncio.create_task(check_aside(settings, {}))
        await until(active_children)
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)

    asyncio.run(run())
    assert active_children() == []
