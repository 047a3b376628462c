"""Reading metrics, and which processes make a stack."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deploy.observe import (
    KafkaState,
    MetricLine,
    by_label,
    kafka_state,
    mean,
    our_groups,
    role_states,
    scrape,
    total,
)
from deploy.stack import Stack, roles
from models.errors import StackError
from models.schemas import ReleaseAnnouncement
from models.settings import load_settings
from streams.kafka.clients import producer
from streams.kafka.topics import ensure_topics
from tests.conftest import MakeSettings

SAMPLES = [
    MetricLine("events_total", {"type": "click", "outcome": "applied"}, 3.0),
    MetricLine("events_total", {"type": "cart", "outcome": "applied"}, 2.0),
    MetricLine("events_total", {"type": "cart", "outcome": "duplicate"}, 1.0),
    MetricLine("wait_seconds_sum", {}, 6.0),
    MetricLine("wait_seconds_count", {}, 4.0),
]


def test_totals_add_up_what_carries_the_labels() -> None:
    assert total(SAMPLES, "events_total") == 6.0
    assert total(SAMPLES, "events_total", outcome="applied") == 5.0
    assert total(SAMPLES, "events_total", outcome="applied", type="cart") == 2.0
    assert total(SAMPLES, "absent") == 0.0


def test_sums_by_label_and_means() -> None:
    assert by_label(SAMPLES, "events_total", "outcome") == {"applied": 5.0, "duplicate": 1.0}
    assert mean(SAMPLES, "wait_seconds") == 1.5
    assert mean(SAMPLES, "absent") is None


def test_a_role_that_does_not_answer_has_no_samples() -> None:
    assert scrape("http://127.0.0.1:9") == []


def test_a_bad_record_among_the_releases_does_not_hide_the_others(
    kafka: str, make_settings: MakeSettings
) -> None:
    settings = make_settings()
    serving = ReleaseAnnouncement(release="base-0", status="serving", at=1_300_000_000_000)

    async def seen() -> KafkaState:
        await ensure_topics(settings)
        topic = settings.topic("releases")
        async with producer(settings) as sender:
            for value in (serving.to_json(), b"not json", b'{"release": 1}', None):
                await sender.send_and_wait(topic, value, key=b"base-0")
        return await kafka_state(settings)

    state = asyncio.run(seen())
    assert (state.releases, state.serving) == ((serving,), "base-0")


def test_every_worker_has_a_port_and_a_name_of_its_own() -> None:
    found = roles(load_settings(workers=3))
    assert [role.name for role in found[:3]] == ["tracker-0", "tracker-1", "tracker-2"]
    assert len({role.url for role in found}) == len(found) == 6


def test_a_start_on_a_cluster_that_is_away_ends_and_says_so(
    tmp_path: Path,
) -> None:
    kafka = {"bootstrap": "127.0.0.1:9", "embedded": False, "answer_within_s": 0.2}
    stack = Stack(load_settings(data_dir=tmp_path, kafka=kafka))
    with pytest.raises(StackError, match=r"127\.0\.0\.1:9 did not answer within 0\.2 s"):
        stack.start(lambda _part, _what: None)
    assert stack.running() == []


def test_two_starts_at_once_are_refused(tmp_path: Path) -> None:
    stack = Stack(load_settings(data_dir=tmp_path, kafka={"embedded": False}))
    with stack._lock(), pytest.raises(StackError, match="another palate"):
        stack.stop(lambda _part, _what: None)


def test_stopping_what_never_ran_is_harmless(tmp_path: Path) -> None:
    said: dict[str, str] = {}
    stack = Stack(load_settings(data_dir=tmp_path, kafka={"embedded": False}))
    stack.stop(said.__setitem__)
    assert set(said.values()) == {"was not running"}
    assert stack.running() == []


def test_the_lag_of_a_release_that_is_gone_is_nobodys() -> None:
    settings = load_settings(kafka={"prefix": "shop-"})
    steps = [
        ReleaseAnnouncement.model_validate({"release": release, "status": status, "at": 10**12})
        for release, status in (("a", "serving"), ("b", "serving"), ("c", "serving"))
    ]
    steps.append(steps[0].model_copy(update={"release": "d", "status": "published"}))
    assert our_groups(settings, steps) == {
        "shop-palate-tracker",
        "shop-palate-profiler",
        *(f"shop-palate-indexer-{release}" for release in "bcd"),
    }


def test_a_role_that_has_ended_is_told_with_its_last_words(tmp_path: Path) -> None:
    stack = Stack(load_settings(data_dir=tmp_path, kafka={"embedded": False}))
    told_to_stop, ended = role_states(stack)[0], stack.background(stack.roles[0])
    assert told_to_stop.not_ready == "not running"
    ended.pid_file.parent.mkdir(parents=True)
    ended.pid_file.write_text('{"pid": 1, "created": 1.0}')
    ended.log_file.parent.mkdir(parents=True)
    ended.log_file.write_text(
        "--- tracker-0 starts\n2026-11-21 04:00:00,123 ERROR streams.service: tracker stops: oh\n"
    )
    said = role_states(stack)[0].not_ready
    assert said is not None
    assert "`palate up` starts it again" in said
    assert said.endswith("tracker stops: oh")
