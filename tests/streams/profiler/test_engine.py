from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from models.errors import EngineError, EngineUnavailable
from models.fakes import FakeEncoder
from models.settings import ProfileSettings
from streams.metrics import ProfilerMetrics
from streams.profiler import engine as engine_module
from streams.profiler.engine import Engine
from tests.patience import HANG_S

GOOD = "Likes lanterns."


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_WAIT_S", "LONGEST_WAIT_S", "PROBE_EVERY_S"):
        monkeypatch.setattr(engine_module, name, 0.001)


def engine_of(encoder: FakeEncoder, retries: int = 2) -> tuple[Engine, CollectorRegistry]:
    registry = CollectorRegistry()
    settings = ProfileSettings(retries=retries)
    return Engine(encoder, settings, ProfilerMetrics(registry)), registry


def failures(registry: CollectorRegistry, kind: str) -> float:
    return registry.get_sample_value("palate_engine_failures_total", {"kind": kind}) or 0.0


def test_an_engine_that_recovers_in_time_is_tried_again() -> None:
    encoder = FakeEncoder([EngineUnavailable("down"), EngineUnavailable("down"), GOOD])
    engine, registry = engine_of(encoder)
    completion = asyncio.run(engine.ask("p"))
    assert completion is not None
    assert completion.text == GOOD
    assert failures(registry, "unavailable") == 2


def test_tries_are_bounded() -> None:
    encoder = FakeEncoder(otherwise=lambda _: EngineUnavailable("down"))
    engine, _ = engine_of(encoder, retries=1)
    assert asyncio.run(engine.ask("p")) is None
    assert len(encoder.prompts) == 2


def test_what_would_fail_again_is_not_tried_again() -> None:
    encoder = FakeEncoder([EngineError("too long"), GOOD])
    engine, registry = engine_of(encoder)
    assert asyncio.run(engine.ask("p")) is None
    assert len(encoder.prompts) == 1
    assert failures(registry, "error") == 1


def test_nonsense_is_counted_and_tried_again() -> None:
    encoder = FakeEncoder(["", "\x00\x01\x02", GOOD])
    engine, registry = engine_of(encoder)
    completion = asyncio.run(engine.ask("p"))
    assert completion is not None
    assert completion.text == GOOD
    assert failures(registry, "nonsense") == 2


def test_a_defect_of_the_engine_costs_only_the_completion() -> None:
    def broken(_: str) -> str:
        raise RuntimeError("a defect")

    engine, registry = engine_of(FakeEncoder(otherwise=broken))
    assert asyncio.run(engine.ask("p")) is None
    assert failures(registry, "error") == 1


def test_a_dead_engine_is_not_asked_for_every_profile() -> None:
    encoder = FakeEncoder()
    encoder.down = True
    engine, registry = engine_of(encoder)

    async def ask_often() -> None:
        for _ in range(20):
            assert await engine.ask("p") is None

    asyncio.run(ask_often())
    assert len(encoder.prompts) == 3
    assert not engine.available
    assert registry.get_sample_value("palate_engine_up") == 0


def test_an_engine_that_is_well_again_is_found_by_probing() -> None:
    encoder = FakeEncoder(otherwise=lambda _: GOOD)
    encoder.down = True
    engine, registry = engine_of(encoder)

    async def fail_and_recover() -> None:
        await engine.ask("p")
        watching = asyncio.create_task(engine.watch())
        encoder.down = False
        async with asyncio.timeout(HANG_S):
            while not engine.available:
                await asyncio.sleep(0.001)
        assert (await engine.ask("p")) is not None
        watching.cancel()

    asyncio.run(fail_and_recover())
    assert registry.get_sample_value("palate_engine_up") == 1


def test_an_engine_that_only_claims_to_be_well_is_given_up_at_its_first_failure() -> None:
    encoder = FakeEncoder(otherwise=lambda _: EngineUnavailable("still down"))
    engine, _ = engine_of(encoder)

    async def claim() -> None:
        await engine.ask("p")
        watching = asyncio.create_task(engine.watch())
        async with asyncio.timeout(HANG_S):
            while not engine.available:
                await asyncio.sleep(0.001)
        watching.cancel()
        encoder.prompts.clear()
        assert await engine.ask("p") is None
        assert not engine.available

    asyncio.run(claim())
    assert len(encoder.prompts) == 1


def test_an_engine_that_seems_well_and_answers_nothing_is_given_up_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = FakeEncoder(otherwise=lambda _: EngineUnavailable("a page, not a completion"))
    engine, _ = engine_of(encoder, retries=0)

    async def run() -> None:
        watching = asyncio.create_task(engine.watch())
        async with asyncio.timeout(HANG_S):
            while len(encoder.prompts) < 20:
                await engine.ask("p")
                await asyncio.sleep(0.001)
        watching.cancel()

    asyncio.run(run())
    assert sum("given up" in record.message for record in caplog.records) == 1


def test_a_probe_that_raises_does_not_end_the_watch() -> None:
    class Defective(FakeEncoder):
        async def healthy(self) -> bool:
            raise AttributeError("'str' object has no attribute 'data'")

    engine, _ = engine_of(Defective(otherwise=lambda _: EngineUnavailable("down")), retries=0)

    async def run() -> bool:
        watching = asyncio.create_task(engine.watch())
        while engine.available:
            await engine.ask("p")
        await asyncio.sleep(0.05)
        ended = watching.done()
        watching.cancel()
        return ended

    assert not asyncio.run(run())
