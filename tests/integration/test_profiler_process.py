"""The profiler as its own process, with the real language model and embedder."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.schemas import Origin, Profile, Section
from models.settings import Settings
from tests.conftest import MakeSettings, role_environment
from tests.integration.test_profiler import Wire
from tests.streams.profiler.requests import request

pytestmark = pytest.mark.model
CHECKOUT = Path(__file__).parent.parent.parent


@contextmanager
def process(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **role_environment(settings), "PYTHONPATH": str(CHECKOUT)}
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "streams.profiler"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_a_killed_profiler_loses_nothing_and_the_real_model_answers(
    kafka: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(
        profile={"engine": "transformers", "batch": 1, "max_new_tokens": 24},
        kafka={"partitions": 1, "session_timeout_s": 3.0, "heartbeat_s": 1.0},
    )
    log = tmp_path / "profiler.log"
    users = [f"u{n}" for n in range(4)]

    async def scenario() -> list[Profile]:
        async with Wire(settings).open() as wire:
            await wire.serve()
            await wire.ask(*(request(user) for user in users))
            with process(settings, log) as first:
                await wire.until(lambda: wire.profiles)
                first.send_signal(signal.SIGKILL)
                first.wait()
            with process(settings, log) as second:
                await wire.until(lambda: all(map(wire.of, users)))
                second.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(second.wait) == 0
            assert (await wire.committed())[0] == len(users)
            return wire.profiles

    try:
        profiles = asyncio.run(scenario())
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()[-4_000:]}") from error
    for profile in profiles:
        assert profile.model == "smollm2-135m-instruct"
        assert not profile.fallback
        assert profile.tokens.prompt > 50
        assert 0 < profile.tokens.completion <= 24
        assert len(profile.vector) == 384
        for section in Section:
            for sentence in getattr(profile.sections, section.value):
                assert sentence.evidence or sentence.origin == Origin.USER
