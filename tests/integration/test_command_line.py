"""`palate up` to `palate down` as the README has it, on a real broker with all four roles."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.settings import Settings
from tests.conftest import MakeSettings, role_environment
from tests.patience import Deadline
from tests.readme import shell_lines

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[2]
CUSTOMER = "13085"  # of the sample's first basket, and of the README
EVENTS = 1_500
ADDED = {  # to the README's lines, so that they end within the time of a test
    "import items": ["--limit=400"],
    "import interactions": [f"--limit={EVENTS}"],
    "watch --user": ["--count=5", "--json"],
}


class Palate:
    """The command in a process of its own, with the test's settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.environment = {**os.environ, **role_environment(settings), "COLUMNS": "120"}
        # As on a cluster of one's own: the README's short form, and a prefix.
        del self.environment["PALATE_KAFKA"]
        [export, _] = shell_lines("### Your own Kafka")
        short_form = export.removeprefix("export ").partition("=")[0]
        self.environment[short_form] = settings.kafka.bootstrap
        self.environment["PALATE_KAFKA__PREFIX"] = settings.kafka.prefix

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "deploy", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"palate {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def in_the_background(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))

    def eventually(self, wanted: Callable[[], Any], what: str) -> Any:
        deadline = Deadline()
        while not (found := wanted()):
            assert not deadline.over(), f"waited for {what} in vain"
            time.sleep(0.5)
        return found


@pytest.fixture
def palate(kafka: str, make_settings: MakeSettings) -> Iterator[Palate]:
    command = Palate(
        make_settings(
            profile={"engine": "extractive"},
            log={"seconds": 0.5},
            trigger={"calls_per_minute": 600, "burst_calls": 100},
        )
    )
    yield command
    command("down")


def readme_commands() -> list[list[str]]:
    """What follows `palate` in the lines under "Use it", shortened by what is ADDED."""
    lines = [shlex.split(line)[1:] for line in shell_lines("## Use it")]
    return [line + ADDED.get(" ".join(line[:2]), []) for line in lines]


def test_a_day_with_palate(palate: Palate) -> None:
    up, *commands, down = readme_commands()
    assert (up, down) == (["up"], ["down"])
    [watch] = [command for command in commands if command[0] == "watch"]
    started = palate.json(*up)
    assert set(started["started"]) == {"tracker-0", "profiler", "indexer", "recorder"}
    assert "already running" in palate(*up)

    watching = palate.in_the_background(*watch)  # in a second terminal, from the beginning
    for command in commands:
        if command[0] == "profile":
            palate.eventually(lambda: _profile_of(palate), "a profile in the log")
        if command != watch:
            palate(*command)

    profile = palate.json("profile", CUSTOMER)
    cited = [e for s in profile["profile"]["sections"].values() for x in s for e in x["evidence"]]
    assert set(cited) <= set(profile["evidence"])
    assert CUSTOMER in palate("profile", CUSTOMER)

    history = palate.json("history", CUSTOMER, "--last", "3")
    assert len(history["events"]) == 3
    assert "purchase" in palate("history", CUSTOMER)

    listed = palate.json("recommend", CUSTOMER)["recommendation"]
    assert [item["rank"] for item in listed["items"]] == list(range(1, 11))
    assert all(item["reason"]["text"] for item in listed["items"])
    assert listed["items"][0]["item_id"] in palate("recommend", CUSTOMER)

    assert palate.json("outcomes")["lists"] > 0
    assert "rank" in palate("outcomes")

    lines = [json.loads(line) for line in watching.communicate()[0].splitlines()]
    assert len(lines) == 5
    assert {line["kind"] for line in lines} <= {"event", "profile", "list"}

    status = palate.json("status")
    assert all(role["ready"] for role in status["roles"])
    assert status["kafka"]["serving"] == "base-0"
    assert status["freshness"]["events"]["applied"] == EVENTS
    assert "palate-recorder" in palate("status")

    assert set(palate.json(*down)["stopped"]) == set(started["started"])
    assert palate.json("status", code=1)["roles"][0]["ready"] is False
    assert "was not running" in palate("down")


def _profile_of(palate: Palate) -> bool:
    """Whether the customer's profile and list have reached the log."""
    for command in ("profile", "recommend"):
        done = subprocess.run(
            [sys.executable, "-m", "deploy", command, CUSTOMER, "--json"],
            cwd=ROOT,
            env=palate.environment,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            return False
    return True


def test_what_is_not_there_is_said_with_code_3(palate: Palate) -> None:
    palate.settings.log_dir.mkdir(parents=True)
    for command in ("profile", "history", "recommend"):
        assert "nobody" in palate(command, "nobody", code=3)


def test_a_role_that_dies_at_the_start_shows_the_end_of_its_log(
    kafka: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(profile={"engine": "transformers", "model": "/no/such/model"})
    palate = Palate(settings)
    try:
        said = palate("up", code=1)
        assert "profiler is not running" in said
        assert "/no/such/model" in said
        assert "Traceback" not in said
    finally:
        palate("down")
