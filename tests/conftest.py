"""One real broker for the whole run; settings of its own for every test."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings

from deploy.broker import Broker
from models.engines.threads import wait_without_spinning
from models.settings import Settings, load_settings
from tests.patience import HANG_S, machine_clock
from tests.ports import free_port, free_ports, neighbouring_ports

wait_without_spinning()  # also for the processes that tests start

if TYPE_CHECKING:
    from tests.vllm import Served

MakeSettings = Callable[..., Settings]

# Examples share two cores with a broker and a language model: their time says nothing.
hypothesis_settings.register_profile("palate", deadline=None, derandomize=True)
hypothesis_settings.load_profile("palate")


def pytest_configure() -> None:
    """A run that is told to end (by `timeout`, by CI) stops its broker, as one by Ctrl-C does.

    A shell's background jobs ignore Ctrl-C, and so would every process that a test interrupts.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the broker or vLLM is marked so, also where its author forgot to."""
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        for name in sorted(implied(marks, getattr(item, "fixturenames", ())) - marks):
            item.add_marker(getattr(pytest.mark, name))


def implied(marks: Iterable[str], fixtures: Iterable[str]) -> set[str]:
    """All marks of a test that has these, so that each test is in one tier of the Makefile."""
    found = set(marks) | ({"vllm"} & set(fixtures))
    if "vllm" in found:
        found.add("model")
    if "model" in found or {"kafka", "needs_java"} & set(fixtures):
        found.add("service")
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """A test that hangs is ended by the machine's clock, not by the wall's."""
    from pytest_timeout import timeout_sigalrm

    main = threading.main_thread().ident
    assert main is not None
    signal.signal(signal.SIGALRM, lambda *_: timeout_sigalrm(item, settings))
    call_off = machine_clock.alarm(
        settings.timeout, lambda: signal.pthread_kill(main, signal.SIGALRM)
    )

    def cancel() -> None:
        call_off()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # also of one that rang just now

    item.cancel_timeout = cancel  # type: ignore[attr-defined]
    return True


@pytest.fixture(scope="session", autouse=True)
def _own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests and the roles that they start do not read this machine's palate.toml."""
    config = tmp_path_factory.mktemp("config") / "palate.toml"
    config.touch()
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("PALATE_")]:
            if name != "PALATE_MODELS_DIR":
                patch.delenv(name)
        patch.setenv("PALATE_CONFIG", str(config))
        yield


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real broker: KAFKA_BOOTSTRAP if that is set, else one of our own."""
    given = os.environ.get("KAFKA_BOOTSTRAP")
    if given:
        yield given
        return
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("broker"),
        kafka={"bootstrap": f"127.0.0.1:{free_port()}", "embedded": True},
    )
    broker = Broker(settings)
    try:
        broker.start()
        yield settings.kafka.bootstrap
    finally:  # also where the run was told to end while the broker started
        broker.stop()


@pytest.fixture
def needs_java() -> None:
    """Skip where only a cluster of one's own is to be had; fail where `make test` asks for Java."""
    if os.environ.get("KAFKA_BOOTSTRAP") and not shutil.which("java"):
        pytest.skip("no Java for a broker of the test's own")


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A vLLM server on CPU with a LoRA; one for the whole run, it takes a minute to start."""
    from tests.vllm import vllm_server

    with vllm_server(tmp_path_factory.mktemp("vllm"), models_dir()) as served:
        yield served


def models_dir() -> Path:
    """Where all tests share one converted language model."""
    default = Path(__file__).parent.parent / "var/models"
    return Path(os.environ.get("PALATE_MODELS_DIR", default))


@pytest.fixture
def make_settings(tmp_path: Path, request: pytest.FixtureRequest) -> MakeSettings:
    """`make_settings(profile={"engine": "extractive"}, …)` → Settings of this test's own.

    A temporary data_dir, topics and groups under a prefix, free metrics ports; the session's
    broker if the test also asks for the fixture `kafka`, else an address where nothing listens.
    Two calls in one test give the same data_dir and prefix.
    """
    uses_broker = "kafka" in request.fixturenames
    bootstrap = request.getfixturevalue("kafka") if uses_broker else f"127.0.0.1:{free_port()}"
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    roles = ("tracker", "profiler", "recorder", "indexer")
    metrics = {f"{role}_port": port for role, port in zip(roles, free_ports(4), strict=True)}
    metrics["tracker_port"] = neighbouring_ports()  # a second worker takes the next one

    def make(**overrides: Any) -> Settings:
        has_broker = uses_broker or overrides.get("kafka", {}).get("embedded")
        patience = {"answer_within_s": HANG_S} if has_broker else {}
        defaults: dict[str, Any] = {
            "data_dir": tmp_path / "data",
            "models_dir": models_dir(),
            "kafka": {"bootstrap": bootstrap, "embedded": False, "prefix": prefix} | patience,
            "metrics": metrics,
            "profile": {"starter": False},  # tests begin with base-0
        }
        return load_settings(**merged(defaults, overrides))

    return make


def merged(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`overrides` on top of `defaults`, group by group."""
    result = dict(defaults)
    for name, value in overrides.items():
        inner = result.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[name] = {**inner, **value} if both else value
    return result


def role_environment(settings: Settings) -> dict[str, str]:
    """Environment variables with which another process reads exactly these settings.

    Not for settings with secrets, which are masked here. Use as `env={**os.environ, **this}`.
    """
    environment = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        text = (
            value.model_dump_json(exclude_none=True)
            if hasattr(value, "model_dump_json")
            else str(value)
        )
        environment[f"PALATE_{name.upper()}"] = text
    return environment
