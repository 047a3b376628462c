"""`palate releases` against a real broker; what the roles would say is announced by the tests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from deploy import cli
from deploy.promotion import releases_topic
from models.errors import PalateError
from models.release.store import FolderReleaseStore, base_release
from models.settings import Settings
from streams.kafka.topics import ensure_topics
from streams.releases import announce as announce_step
from tests.conftest import MakeSettings, role_environment

pytestmark = pytest.mark.service
AT = 1_600_000_000_000


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those that the commands read, too; base-0 serves and taste-1 is published."""
    settings = make_settings()
    for name, value in role_environment(settings).items():
        monkeypatch.setenv(name, value)
    publish(settings, "base-0")
    publish(settings, "taste-1", kind="trained")
    announce(settings, ("base-0", "serving"))
    return settings


def publish(settings: Settings, name: str, **fields: Any) -> None:
    release = replace(base_release(settings, AT), id=name, **fields)
    FolderReleaseStore(settings.releases_dir).publish(release)


def announce(settings: Settings, *steps: tuple[str, str]) -> None:
    store = FolderReleaseStore(settings.releases_dir)

    async def send() -> None:
        await ensure_topics(settings)
        async with releases_topic(settings) as topic:
            for release, status in steps:
                await topic.say(store.get(release), status)

    asyncio.run(send())


def palate(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["releases", *arguments])


def states() -> dict[str, str]:
    rows = orjson.loads(palate("list", "--json").stdout)
    return {row["id"]: row["state"] for row in rows}


def test_releases_are_listed_with_what_they_are_doing(settings: Settings) -> None:
    assert states() == {"base-0": "serving", "taste-1": ""}
    announce(settings, ("taste-1", "published"))
    assert states()["taste-1"] == "candidate (the indexer makes its item vectors)"
    announce(settings, ("taste-1", "items-ready"), ("taste-1", "profiles-ready"))
    assert states()["taste-1"] == "candidate (no profiler runs; palate up starts one)"
    announce(settings, ("taste-1", "serving"))
    assert states() == {"base-0": "previous", "taste-1": "serving"}
    assert "taste-1" in palate("list").stdout


def test_what_is_announced_and_nowhere_is_listed_as_missing_and_gone_back_from(
    settings: Settings,
) -> None:
    async def send() -> None:
        async with releases_topic(settings) as topic:
            for name in ("ghost-1", "ghost-2"):
                await announce_step(topic.producer, settings, name, "serving", "x")

    asyncio.run(send())
    rows = {row["id"]: row for row in orjson.loads(palate("list", "--json").stdout)}
    assert rows["ghost-2"]["kind"] == "missing"
    assert rows["ghost-2"]["state"].startswith("serving; there is no release 'ghost-2' in ")
    assert "base-0 serves again" in palate("rollback").stdout
    assert states()["base-0"] == "serving"


def test_a_release_is_shown_with_what_speaks_against_it(settings: Settings) -> None:
    gate = {"passed": False, "reasons": ["ndcg@10 fell"]}
    publish(settings, "taste-2", prompt_version="lines-0", metrics={"gate": gate})
    findings = orjson.loads(palate("show", "taste-2", "--json").stdout)["findings"]
    assert "prompts 'lines-0'" in findings["unfit"]
    assert findings["held_back"] == "ndcg@10 fell"
    assert findings["damaged"] is None
    assert "ndcg@10 fell" in palate("show", "taste-2").stdout
    assert isinstance(palate("show", "none").exception, PalateError)


def test_what_the_gate_held_back_is_promoted_only_by_force(settings: Settings) -> None:
    gate = {"passed": False, "reasons": ["ndcg@10 fell"]}
    publish(settings, "taste-2", metrics={"gate": gate})
    held = palate("promote", "taste-2")
    assert "ndcg@10 fell. --force promotes it anyway" in str(held.exception)
    assert states()["taste-2"] == ""
    forced = palate("promote", "taste-2", "--force", "--within", "1")
    assert "was not ready within 1 s" in str(forced.exception)
    assert states()["base-0"] == "serving"


def test_going_back_is_one_record_and_again_forth(settings: Settings) -> None:
    assert "no release is kept beside 'base-0'" in str(palate("rollback").exception)
    announce(settings, ("taste-1", "serving"))
    assert "base-0 serves again" in palate("rollback").stdout
    assert states() == {"base-0": "serving", "taste-1": "previous"}
    assert palate("rollback", "--to", "taste-1").exit_code == 0
    assert states()["taste-1"] == "serving"
