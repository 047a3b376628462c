"""`palate rebuild` against the state that a real tracker keeps on a real broker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import orjson
import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from deploy.commands.rebuild import rebuild
from models.schemas import Interaction, ProfileEdit
from models.settings import Settings
from streams.changelog import read_changelog
from streams.event_log import SegmentLog
from streams.kafka.clients import producer
from streams.kafka.topics import ensure_topics
from streams.tracker.state import CLOCK_KEY, decode_clock, load
from tests.conftest import MakeSettings, role_environment
from tests.patience import Deadline
from tests.streams.logged import NOW

pytestmark = pytest.mark.service
EVENTS = 600
app = Typer()
app.command()(rebuild)


def palate(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=role_environment(settings))


@contextmanager
def role(settings: Settings, module: str) -> Iterator[subprocess.Popen[bytes]]:
    with (settings.data_dir.parent / f"{module}.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            env={**os.environ, **role_environment(settings)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = Deadline()
    while not holds():
        assert not deadline.over(), f"not {what} in time"
        time.sleep(0.1)


async def _produce(settings: Settings) -> None:
    await ensure_topics(settings)
    async with producer(settings) as sender:
        for number in range(EVENTS):
            event = Interaction(
                event_id=f"e{number - number % 7 % 2}",  # some are sent twice
                user_id=f"u{number % 8}",
                item_id=f"i{number % 11}",
                type="impression" if number % 13 == 0 else "purchase",
                timestamp=NOW - number * 1000 if number % 5 == 0 else NOW + number * 1000,
            )
            key = event.user_id.encode()
            await sender.send(settings.topic("interactions"), event.to_json(), key=key)
        edit = ProfileEdit(edit_id="x", user_id="u3", action="forbid", text="wine", timestamp=NOW)
        await sender.send(settings.topic("profile-edits"), edit.to_json(), key=b"u3")
        await sender.flush()


def state(settings: Settings) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for partition in range(settings.kafka.partitions):
        found |= asyncio.run(read_changelog(settings, partition))
    return found


def applied(settings: Settings) -> int:
    """Interactions and edits that the tracker's state has taken in."""
    total = 0
    for partition in range(settings.kafka.partitions):
        records = asyncio.run(read_changelog(settings, partition))
        _, *offsets = decode_clock(records.get(CLOCK_KEY))
        total += sum(offsets)
    return total


def logged(settings: Settings) -> int:
    log, topics = SegmentLog(settings.log_dir), ("interactions", "profile-edits")
    return sum(log.next_offset(t, p) for t in topics for p in range(settings.kafka.partitions))


def test_the_state_is_what_the_log_says_and_can_be_made_again(
    kafka: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(kafka={"partitions": 2}, log={"seconds": 0.2})
    asyncio.run(_produce(settings))
    with role(settings, "streams.recorder"), role(settings, "streams.tracker") as tracker:
        wait_until(lambda: applied(settings) == EVENTS + 1, "applied")
        wait_until(lambda: logged(settings) == EVENTS + 1, "logged")
        running = palate(settings)
        assert running.exit_code == 1
        assert "a tracker is running" in str(running.exception)
        tracker.send_signal(signal.SIGTERM)
        assert tracker.wait() == 0

    compared = palate(settings, "--check", "--json")
    assert orjson.loads(compared.stdout) == {"users": 8, "differences": []}
    before = {user: load(user, state(settings).get, 500) for user in ("u0", "u3")}
    assert before["u3"].head.forbidden == ("wine",)

    rebuilt = palate(settings, "--json")
    assert rebuilt.exit_code == 0, rebuilt.output
    assert orjson.loads(rebuilt.stdout)["users"] == 8
    assert not (settings.data_dir / "state").exists()
    after = {user: load(user, state(settings).get, 500) for user in before}
    for user, kept in before.items():
        assert after[user].history == kept.history
        assert after[user].head.marks(0) == kept.head.marks(0)
    assert orjson.loads(palate(settings, "--json").stdout)["written"] == 0

    asyncio.run(_produce(settings))  # again: duplicates change nothing
    both = 2 * (EVENTS + 1)
    with role(settings, "streams.recorder"), role(settings, "streams.tracker"):
        wait_until(lambda: applied(settings) == both and logged(settings) == both, "gone on")
    assert orjson.loads(palate(settings, "--check", "--json").stdout)["differences"] == []
    for user, kept in before.items():
        assert load(user, state(settings).get, 500).history == kept.history
