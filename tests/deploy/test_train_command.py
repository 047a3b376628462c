"""`palate train`: what it says, its exit codes, and what schedulers and Prometheus see of it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from deploy import cli
from deploy.commands import train
from deploy.commands.train import _serving as as_it_is
from models.engines.model_files import base_model_hash, embedder_model
from models.errors import ReleaseError, ReleaseNotReady
from models.ports import InForce
from models.release.store import BASE_RELEASE, FolderReleaseStore, base_release
from models.settings import Settings
from streams.event_log import SegmentLog
from streams.releases import ServingRelease
from tests.conftest import MakeSettings, role_environment
from tests.patience import Deadline
from tests.ports import free_port
from tests.trainer.learning.tiny_models import tiny_llama
from tests.trainer.pipeline.whole.running import metrics
from tests.trainer.small_run import fill
from trainer.data.log_source import logged_until
from trainer.gate.decision import Check, Verdict
from trainer.pipeline.outcome import RunMemory, load_memory, save_memory
from trainer.pipeline.record import RunRecord, RunRecords, new_name
from trainer.pipeline.run_key import judging_key, learning_key

AT = 1_300_000_000_000
ANNOUNCED = count(1)


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those that the command reads; base-0 serves, and the log is empty."""
    settings = make_settings(profile={"model": str(tiny_llama(tmp_path / "llama"))})
    read_by_the_command(settings, monkeypatch)
    FolderReleaseStore(settings.releases_dir).publish(base_release(settings, AT))
    return settings


def read_by_the_command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in role_environment(settings).items():
        monkeypatch.setenv(name, value)
    serves(BASE_RELEASE, monkeypatch)


def serves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time anew."""
    since = next(ANNOUNCED)

    async def serving(_: Settings) -> InForce:
        return InForce(name, since)

    monkeypatch.setattr("deploy.commands.train._serving", serving)


@pytest.fixture
def with_events(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """240 events are logged since base-0, enough to train on."""
    sessions = settings.train.sessions.model_copy(update={"min_new_events": 200})
    often = settings.train.model_copy(update={"sessions": sessions})
    found = settings.model_copy(update={"train": often})
    read_by_the_command(found, monkeypatch)
    fill(found)
    return found


def judged(settings: Settings, *, passed: bool, parent: str = BASE_RELEASE) -> str:
    """A run whose release was written and judged, and nothing after it."""
    until = logged_until(SegmentLog(settings.log_dir))
    learning = learning_key(settings, base_model_hash(settings), embedder_model(settings))
    store = FolderReleaseStore(settings.releases_dir)
    name = new_name(AT, store.ids())
    run = RunRecord(name, asyncio.run(train._serving(settings)), until, learning, AT, name)
    RunRecords(settings.training_dir).save(replace(run, judged_by=judging_key(settings)))
    check = Check("serving", passed, -0.01, 0.0, "lower bound")
    verdict = Verdict(name, parent, BASE_RELEASE, 9, (check,))
    gate = {
        "passed": passed,
        "reasons": list(verdict.reasons),
        "against": [parent, BASE_RELEASE],
        "checks": [{"name": "serving", "passed": passed, "found": -0.01, "limit": 0.0, "said": ""}],
    }
    store.publish(
        replace(
            base_release(settings, AT),
            id=name,
            parent=parent,
            kind="trained",
            metrics={"gate": gate, "users": 9},
        )
    )
    return name


@pytest.fixture
def promoted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(release, in whose place) of each promotion."""
    found: list[tuple[str, str]] = []

    def put(_settings: object, name: str, _within: object, _console: object, instead_of: InForce):
        found.append((name, instead_of.release))

    monkeypatch.setattr("deploy.commands.releases.put_into_service", put)
    return found


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def put(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("deploy.commands.releases.put_into_service", put)


def palate_train(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["train", *arguments], catch_exceptions=False)


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """As the system sees it."""
    monkeypatch.setattr(sys, "argv", ["palate", "train", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(str(ended.value.code))


def test_what_passes_the_gate_takes_the_place_of_what_it_was_judged_against(
    settings: Settings, promoted
) -> None:
    name = judged(settings, passed=True)
    done = palate_train()

    assert promoted == [(name, BASE_RELEASE)]
    assert done.exit_code == 0
    assert f"release {name} passed the gate and serves" in done.output


def said_of_the_next_run() -> str:
    """It is skipped; in one line."""
    done = palate_train()
    assert done.exit_code == 0
    assert "nothing trained" in done.output
    return " ".join(done.output.split())


def test_a_release_that_the_gate_holds_back_is_exit_code_4_with_the_reason(
    with_events: Settings, promoted
) -> None:
    name = judged(with_events, passed=False)
    done = palate_train()

    assert (done.exit_code, promoted) == (4, [])
    assert f"release {name} stays as it is: serving" in done.output
    again = said_of_the_next_run()
    assert f"{name} was made of this data, and the gate held it back" in again
    assert "0 events came since, fewer than train.sessions.min_new_events (200)" in again
    assert f"palate releases promote {name} --force lets it serve" in again


def last_success(settings: Settings) -> float:
    return metrics(settings)["palate_training_last_success_timestamp_seconds"]


def test_what_the_gate_held_back_is_told_to_prometheus_until_another_release_is_judged(
    with_events: Settings, promoted
) -> None:
    judged(with_events, passed=False)
    palate_train()
    said_of_the_next_run()
    found = metrics(with_events)

    assert found["palate_training_outcome/skipped"] == 1
    assert found["palate_training_gate_passed/serving"] == 0
    assert found["palate_training_gate_found/serving"] == -0.01
    assert last_success(with_events) == 0


def test_without_promotion_what_passes_waits_for_a_person(with_events: Settings, promoted) -> None:
    name = judged(with_events, passed=True)
    done = palate_train("--no-promote")

    assert (done.exit_code, promoted) == (0, [])
    assert "palate releases promote lets it serve" in done.output
    before = last_success(with_events)
    assert f"{name} was made of this data, and was not promoted" in said_of_the_next_run()
    assert last_success(with_events) > before > 0
    assert promoted == []


def test_what_an_operator_rolled_back_is_not_made_again(with_events: Settings, promoted) -> None:
    """base-0 serves again, or still, when the next run asks."""
    name = judged(with_events, passed=True)
    palate_train()

    assert f"{name} was made of this data, and served until" in said_of_the_next_run()
    assert promoted == [(name, BASE_RELEASE)]


def test_a_rollback_past_a_release_that_was_trained_on_from_is_not_undone_with_its_data(
    with_events: Settings, monkeypatch, promoted
) -> None:
    rolled_back = judged(with_events, passed=True)
    palate_train()
    serves(rolled_back, monkeypatch)
    judged(with_events, passed=False, parent=rolled_back)
    assert palate_train().exit_code == 4
    serves(BASE_RELEASE, monkeypatch)

    assert f"{rolled_back} was made of this data, and served until" in said_of_the_next_run()
    assert promoted == [(rolled_back, BASE_RELEASE)]


def test_a_promotion_that_was_killed_after_it_served_and_was_rolled_back_is_not_repeated(
    with_events: Settings, monkeypatch, promoted
) -> None:
    """The record still says that it passed; but base-0 was put in force again."""
    name = judged(with_events, passed=True)
    serves(BASE_RELEASE, monkeypatch)

    said = said_of_the_next_run()
    assert f"the run of {name} is not resumed: base-0 was put in force again" in said
    assert f"palate releases promote {name} lets it serve" in said
    assert promoted == []


def test_a_refused_release_that_was_forced_to_serve_and_rolled_back_is_not_judged_again(
    with_events: Settings, monkeypatch, promoted
) -> None:
    judged(with_events, passed=False)
    assert palate_train().exit_code == 4
    serves(BASE_RELEASE, monkeypatch)
    gate = with_events.train.gate.model_copy(update={"margin": 0.5})
    wider = with_events.train.model_copy(update={"gate": gate})
    for name, value in role_environment(with_events.model_copy(update={"train": wider})).items():
        monkeypatch.setenv(name, value)

    assert "base-0 was put in force again since it was compared with it" in said_of_the_next_run()


def explained(*arguments: str) -> dict[str, Any]:
    done = palate_train("--explain", "--json", *arguments)
    assert done.exit_code == 0
    return orjson.loads(done.stdout)


def test_explain_says_what_comes_next_and_why_and_does_nothing(
    with_events: Settings, promoted
) -> None:
    assert explained() == {
        "serving": BASE_RELEASE,
        "new_events": 240,
        "step": "begin",
        "why": "240 events came since base-0's data",
        "run": None,
        "settled": [],
    }
    name = judged(with_events, passed=True)
    before = RunRecords(with_events.training_dir).all()
    found = explained()

    assert (found["step"], found["run"]["release"], found["run"]["state"]) == (
        "promote",
        name,
        "passed",
    )
    assert explained("--no-promote")["step"] == "offer"
    assert [one["state"] for one in found["settled"]] == ["passed"]
    text = " ".join(palate_train("--explain").output.split())
    assert f"{name}, from base-0: passed (passed the gate)" in text
    assert "next: promote, as it passed the gate and does not serve yet" in text
    assert (promoted, RunRecords(with_events.training_dir).all()) == ([], before)


def test_what_an_operator_rolled_back_is_the_anchor_no_longer(
    with_events: Settings, promoted
) -> None:
    rolled_back = judged(with_events, passed=True)
    palate_train()
    save_memory(with_events.training_dir, RunMemory(anchor=rolled_back))
    said_of_the_next_run()

    assert load_memory(with_events.training_dir).anchor == BASE_RELEASE


def test_too_little_that_is_new_is_exit_code_0_with_the_reason(settings: Settings) -> None:
    done = palate_train()

    assert done.exit_code == 0
    assert "nothing trained: 0 events since the data of base-0" in done.output


def test_machines_get_the_outcome_as_json(settings: Settings, promoted) -> None:
    name = judged(settings, passed=True)
    found = orjson.loads(palate_train("--json").stdout)

    assert (found["ending"], found["release"]) == ("passed", name)
    assert found["verdict"]["checks"][0]["name"] == "serving"
    assert found["seconds"] > 0


def test_a_promotion_that_fails_is_exit_code_1_and_tried_again(
    settings: Settings, monkeypatch, capsys, promoted
) -> None:
    name = judged(settings, passed=True)
    with monkeypatch.context() as patch:
        failing(patch, ReleaseNotReady("no profiler runs"))
        assert exit_code(patch) == 1
    assert "no profiler runs" in capsys.readouterr().err
    assert promoted == []

    assert palate_train().exit_code == 0
    assert promoted == [(name, BASE_RELEASE)]


def test_a_promotion_that_is_refused_is_exit_code_1_and_not_tried_again(
    with_events: Settings, monkeypatch
) -> None:
    judged(with_events, passed=True)
    failing(monkeypatch, ReleaseError("refused by profiler/1"))

    assert exit_code(monkeypatch) == 1
    assert "could not be let serve (refused by profiler/1)" in said_of_the_next_run()
    assert metrics(with_events)["palate_training_gate_passed/serving"] == 1
    assert last_success(with_events) == 0


@contextmanager
def pushgateway() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """host:port, and (method, path, body) of what came."""
    came: list[tuple[str, str, str]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            came.append((self.command, self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        server.server_close()


def test_a_pushgateway_gets_the_metrics_of_the_run(settings: Settings, monkeypatch) -> None:
    with pushgateway() as (address, came):
        pushing = settings.train.model_copy(update={"pushgateway": address})
        read_by_the_command(settings.model_copy(update={"train": pushing}), monkeypatch)
        assert palate_train().exit_code == 0

    ((method, path, body),) = came
    assert (method, path) == ("PUT", "/metrics/job/palate_trainer")
    assert 'palate_training_outcome{outcome="skipped"} 1.0' in body
    assert "palate_training_seconds" in body


def test_a_pushgateway_that_is_away_is_only_logged(settings: Settings, monkeypatch, caplog) -> None:
    away = f"127.0.0.1:{free_port()}"
    pushing = settings.train.model_copy(update={"pushgateway": away})
    read_by_the_command(settings.model_copy(update={"train": pushing}), monkeypatch)

    assert palate_train().exit_code == 0
    assert f"metrics were not pushed to {away}" in caplog.text
    assert "palate_training_outcome" in (settings.training_dir / "metrics.prom").read_text()


AGAIN = """
import sys
from deploy import cli
from deploy.commands import train
from models.ports import InForce

async def serving(settings):
    return InForce("base-0")

train._serving = serving
sys.argv = ["palate", "train", "--every", "0.2s"]
cli.main()
"""


def test_where_no_release_serves_yet_training_says_so_at_once(
    settings: Settings, monkeypatch, capsys
) -> None:
    @asynccontextmanager
    async def nothing_announced(_: Settings) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(releases=ServingRelease())

    monkeypatch.setattr("deploy.commands.train._serving", as_it_is)
    monkeypatch.setattr("deploy.promotion.releases_topic", nothing_announced)

    assert exit_code(monkeypatch) == 1
    assert "no release serves yet; palate up makes the first one" in capsys.readouterr().err


@pytest.mark.model  # a process of its own that loads torch
def test_training_again_and_again_ends_in_good_order_when_it_is_told_to(settings: Settings) -> None:
    training = subprocess.Popen(
        [sys.executable, "-c", AGAIN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with training:
        try:
            runs_so_far(settings, 3)  # the last may be stopped before it has said so
            training.send_signal(signal.SIGTERM)
            said, errors = training.communicate()
        finally:
            training.kill()

    assert training.returncode == 0, errors
    assert said.count("nothing trained") >= 2


def runs_so_far(settings: Settings, count: int) -> None:
    """Wait until so many were skipped."""
    deadline = Deadline()
    while load_memory(settings.training_dir).endings.get("skipped", 0) < count:
        assert not deadline.over(), "training was not repeated"
        time.sleep(0.1)
