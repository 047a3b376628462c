"""Health over HTTP, and processes that end within a limit whatever hangs. Real processes."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry

from models.errors import StackError
from models.settings import LivenessSettings
from streams import health as health_module
from streams.health import EXIT_HUNG, EXIT_NOT_CLOSED, HealthServer, Watch
from streams.metrics import RecorderMetrics
from tests.patience import Deadline
from tests.ports import free_ports


@asynccontextmanager
async def health(not_ready, stop=None, metrics=None):
    [port] = free_ports(1)
    metrics = metrics or RecorderMetrics(CollectorRegistry())
    server = HealthServer("127.0.0.1", port, metrics, not_ready)
    await server.start(stop)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        await server.stop()
        await server.stop()


async def answer(client, status, path="/readyz"):
    """The text, as soon as the page answers with this status."""
    deadline = Deadline()
    while (found := await client.get(path)).status_code != status:
        assert not deadline.over(), found.text
        await asyncio.sleep(0.02)
    return found.text


# -- what is said ------------------------------------------------------------------------------


def test_readiness_follows_the_reason_while_health_does_not():
    reasons = ["state is being recovered", None]

    async def run():
        async with health(lambda: reasons[0]) as client:
            assert await answer(client, 503) == "state is being recovered\n"
            assert await answer(client, 200, "/healthz") == "ok\n"
            reasons.pop(0)
            assert await answer(client, 200) == "ready\n"

    asyncio.run(run())


def test_a_role_that_was_told_to_stop_is_not_ready():
    async def run():
        stop = asyncio.Event()
        async with health(lambda: None, stop) as client:
            await answer(client, 200)
            stop.set()
            assert await answer(client, 503) == "stopping\n"

    asyncio.run(run())


def test_a_question_that_fails_is_not_taken_for_a_yes():
    async def run():
        async with health(lambda: 1 / 0) as client:
            assert "division by zero" in await answer(client, 503)

    asyncio.run(run())


def test_a_loop_that_hangs_is_seen_from_outside_it(monkeypatch):
    monkeypatch.setattr(health_module, "SILENT_S", 0.5)

    async def run():
        async with health(lambda: None) as client:
            await answer(client, 200)
            url = str(client.base_url)
            asked = asyncio.create_task(asyncio.to_thread(while_hung, url))
            await asyncio.sleep(0.05)
            time.sleep(2.0)
            ready, alive = await asked
            await answer(client, 200)
            await answer(client, 200, "/healthz")
            return ready, alive

    ready, alive = asyncio.run(run())
    assert (ready.status_code, alive.status_code) == (503, 503)
    assert "has not turned" in ready.text


def while_hung(url):
    time.sleep(1.0)
    return tuple(httpx.get(f"{url}{path}") for path in ("/readyz", "/healthz"))


def test_metrics_say_whether_work_is_done_and_why_not():
    reasons = ["Kafka does not answer", None]

    async def run():
        async with health(lambda: reasons[0]) as client:
            before = (await client.get("/metrics")).text
            reasons.pop(0)
            await answer(client, 200)
            page = await client.get("/metrics")
            return before, page.text, page.headers["content-type"]

    before, after, kind = asyncio.run(run())
    assert 'palate_ready{reason="Kafka does not answer"} 0.0' in before
    assert 'palate_ready{reason=""} 1.0' in after
    assert "Kafka does not answer" not in after
    assert kind.startswith("text/plain; version=")


def test_a_taken_port_is_named_with_the_setting():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = HealthServer("127.0.0.1", port, RecorderMetrics(CollectorRegistry()), lambda: None)
        with pytest.raises(StackError, match=rf"127\.0\.0\.1:{port} .*PALATE_METRICS__"):
            asyncio.run(server.start())


# -- the thread that watches -------------------------------------------------------------------


def left_by(limits, **prepare):
    """The code with which a watch ends its process, or None if it does not within 3 s."""
    codes = []
    with Watch("role", limits, leave=codes.append) as watch:
        for name, value in prepare.items():
            getattr(watch, name)(value)
        deadline = Deadline(3.0)
        while not codes and not deadline.over():
            time.sleep(0.05)
    return codes[0] if codes else None


def test_a_loop_that_never_turns_is_ended(capfd):
    assert left_by(LivenessSettings(hung_s=1.0)) == EXIT_HUNG
    assert "event loop has hung" in capfd.readouterr().err


def test_closing_that_takes_longer_than_its_limit_is_ended(capfd):
    assert left_by(LivenessSettings(), close_within=1.0) == EXIT_NOT_CLOSED
    said = capfd.readouterr().err
    assert "did not close in 1 s" in said
    assert "most recent call first" in said  # what every thread was doing


def test_within_the_limits_nothing_is_ended():
    assert left_by(LivenessSettings(hung_s=30.0), close_within=30.0) is None


# -- whole lives -------------------------------------------------------------------------------

ROLE = """
import asyncio, sys, threading, time
from models.settings import load_settings
from streams.service import run_role, working

async def for_ever():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def main(stop):
    print("begun", flush=True)
    {body}

limits = {{"drain_s": 2.0, "close_s": 1.0, "hung_s": 2.0}}
run_role("recorder", load_settings(liveness=limits), main)
"""
CLOSING_HANGS = """
    try:
        with working("recorder", stop):
            {work}
    finally:
        await for_ever()
"""


@contextmanager
def role(body):
    child = subprocess.Popen(
        [sys.executable, "-c", ROLE.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "begun\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def ended(child):
    """(exit code, the log)."""
    _, said = child.communicate()
    return child.returncode, said


def test_work_that_failed_ends_the_role_though_closing_hangs():
    with role(CLOSING_HANGS.format(work="raise ValueError('poison')")) as child:
        code, said = ended(child)
    assert code == EXIT_NOT_CLOSED
    assert "ValueError: poison" in said
    assert "did not close in 1 s" in said


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_ends_a_role_though_draining_hangs(signals):
    with role(CLOSING_HANGS.format(work="await stop.wait()")) as child:
        for _ in range(signals):
            child.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        code, said = ended(child)
    assert code == EXIT_NOT_CLOSED
    assert "SIGTERM: draining" in said


def test_a_signal_ends_a_role_whose_loop_hangs():
    with role("\n    while True: time.sleep(0.1)") as child:
        child.send_signal(signal.SIGTERM)
        code, _ = ended(child)
    assert code in (EXIT_NOT_CLOSED, EXIT_HUNG)


def test_a_hung_loop_is_ended_and_where_it_hung_is_told():
    with role("time.sleep(600)") as child:
        code, said = ended(child)
    assert code == EXIT_HUNG
    assert "in main" in said


def test_a_thread_that_stays_does_not_keep_the_process():
    body = "threading.Thread(target=time.sleep, args=(600,)).start()"
    with role(body) as child:
        code, said = ended(child)
    assert code == EXIT_NOT_CLOSED
    assert "did not close" in said


def test_a_process_that_stood_still_is_not_taken_for_hung():
    with role("await stop.wait()") as child:
        time.sleep(1.0)
        child.send_signal(signal.SIGSTOP)
        time.sleep(4.0)  # twice the limit
        child.send_signal(signal.SIGCONT)
        time.sleep(1.5)
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        code, _ = ended(child)
    assert code == 0
