from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from deploy.metrics_page import page
from streams.metrics import DECLARED, exposition

SOURCES = [
    path
    for package in ("streams", "trainer", "deploy")
    for path in (Path(__file__).parents[2] / package).rglob("*.py")
    if path.name != "metrics.py"
]


def families(role):
    """Palate's own metric families of a role's registry, by name."""
    registry = CollectorRegistry()
    DECLARED[role](registry)
    return {f.name: f for f in registry.collect() if f.name.startswith("palate_")}


@pytest.mark.parametrize("role", DECLARED)
def test_the_page_lists_exactly_the_registry_with_types_and_help(role):
    section = page().split(f"\n## {role}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", section, re.MULTILINE)
    shown = {name.removesuffix("_total"): (kind, text) for name, kind, _, text in rows}
    found = families(role)
    assert shown == {name: (f.type, f.documentation) for name, f in found.items()}


@pytest.mark.parametrize("role", DECLARED)
def test_names_follow_prometheus_conventions(role):
    for metric in DECLARED[role](CollectorRegistry()).declared:
        assert re.fullmatch(r"palate(_[a-z]+)+", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert metric.help.endswith(".")
        if metric.kind == "histogram":
            assert metric.name.endswith(("_seconds", "_bytes")) or "staleness" in metric.name


def test_two_roles_of_one_process_do_not_collide():
    registries = [CollectorRegistry(), CollectorRegistry()]
    first, second = (DECLARED["tracker"](registry) for registry in registries)
    first.recommendations.labels(trigger="event").inc()
    assert b'trigger="event"' in exposition(registries[0])[0]
    assert b'trigger="event"' not in exposition(registries[1])[0]
    assert second is not first


def test_memory_and_cpu_of_the_role_are_served_too():
    registry = CollectorRegistry()
    DECLARED["recorder"](registry)
    body, content_type = exposition(registry)
    assert b"process_resident_memory_bytes" in body
    assert content_type.startswith("text/plain")


def test_every_declared_metric_is_set_somewhere():
    text = "\n".join(path.read_text() for path in SOURCES)
    declared = {
        name
        for role in DECLARED.values()
        for name in vars(role(CollectorRegistry()))
        if name[0] != "_"
    } - {"declared"}
    unset = {name for name in declared if not re.search(rf"metrics\.{name}\b", text)}
    assert unset == set()
