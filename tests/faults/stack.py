"""The stack that faults are injected into: quick settings, and a line of its own for each role."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from deploy.broker import Broker
from deploy.processes import Background
from deploy.stack import Role, Stack
from models.settings import Settings, load_settings
from streams.kafka.topics import TOPICS, changelog_topic
from tests.conftest import models_dir
from tests.faults.mirror import CHANGELOG
from tests.ports import neighbouring_ports

TRACKERS = 3  # worker numbers with a listener of their own; two run, the third joins
READ = ("interactions", "profile-edits", "items", "profile-requests", "profiles", "recommendations")


class LinedBroker(Broker):
    """A broker with a listener for each role beside its own; the role's leads through a proxy."""

    lines: dict[str, tuple[int, int]]  # role → (port of the listener, of the proxy before it)

    def _write_properties(self, host: str, port: int) -> None:
        super()._write_properties(host, port)
        told = dict(one.split("=", 1) for one in self.properties.read_text().splitlines())
        names = {role: role.upper().replace("-", "") for role in self.lines}
        for role, (own, proxied) in self.lines.items():
            told["listeners"] += f",{names[role]}://127.0.0.1:{own}"
            told["advertised.listeners"] += f",{names[role]}://127.0.0.1:{proxied}"
            told["listener.security.protocol.map"] += f",{names[role]}:PLAINTEXT"
        self.properties.write_text("".join(f"{name}={value}\n" for name, value in told.items()))


class LinedStack(Stack):
    """A stack whose roles reach the broker each through its own proxy."""

    def __init__(self, settings: Settings, lines: dict[str, tuple[int, int]]) -> None:
        super().__init__(settings)
        self.lines = lines
        self.environment: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self.broker = LinedBroker(settings)
        self.broker.lines = lines

    def background(self, role: Role) -> Background:
        made = super().background(role)
        through = {"PALATE_KAFKA__BOOTSTRAP": f"127.0.0.1:{self.lines[role.name][1]}"}
        return replace(
            made, environment={**made.environment, **through, **self.environment[role.name]}
        )


def stack_settings(base: Path, ports: Iterator[int]) -> Settings:
    """Quick times, so that a fault and its check fit into half a minute."""
    metrics = {f"{role}_port": next(ports) for role in ("profiler", "recorder", "indexer")}
    return load_settings(
        data_dir=base / "data",
        models_dir=models_dir(),
        workers=2,
        kafka={
            "bootstrap": f"127.0.0.1:{next(ports)}",
            "embedded": True,
            "prefix": f"f{uuid.uuid4().hex[:6]}-",
            "broker_heap_mb": 256,
            "broker_min_free_mb": 8,
            "session_timeout_s": 6.0,
        },
        metrics=metrics | {"tracker_port": neighbouring_ports(TRACKERS)},
        profile={"engine": "extractive", "starter": False},
        trigger={
            "calls_per_minute": 600,
            "burst_calls": 100,
            "min_interval_s": 2.0,
            "settle_s": 0.5,
        },
        ranking={"top_k": 3, "interval_s": 0.5},
        log={"seconds": 1.0, "compact_below_rows": 2_000, "compact_every_s": 20.0},
        index={"cooccurrence_every_s": 5.0},
    )


def topics(settings: Settings) -> dict[str, tuple[str, int]]:
    own = {name: (settings.topic(name), TOPICS[name].partition_count(settings)) for name in READ}
    return own | {CHANGELOG: (changelog_topic(settings), settings.kafka.partitions)}
