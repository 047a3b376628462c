"""What the demo sends: a split in time, messages that must be refused, a shopping trip."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.demo.plan import make_plan
from deploy.demo.sample import load_sample
from deploy.demo.traffic import bad_messages, choose_theme, shopping_trip
from models.errors import StackError
from models.schemas import Interaction
from streams.codec import Rejected, decode_interaction, partition_for

NOW = 1_323_431_940_000
PARTITIONS = 4


@pytest.mark.parametrize("own_cluster", [True, False])
def test_the_demo_runs_where_it_is_told_to(
    own_cluster: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sample = load_sample(100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # it sets the roles' variables
    os.environ.pop("KAFKA_BOOTSTRAP", None)
    if own_cluster:
        os.environ["KAFKA_BOOTSTRAP"] = "k1:9092"
    kafka = make_plan(sample, rate=1.0).settings.kafka
    assert kafka.embedded is not own_cluster
    assert kafka.bootstrap.startswith("k1:" if own_cluster else "127.0.0.1:")
    assert kafka.prefix.startswith("palate-demo-") is own_cluster


def arrive(key: bytes, value: bytes, headers: tuple[tuple[str, bytes], ...] = ()) -> object:
    record = SimpleNamespace(
        topic="interactions",
        partition=partition_for(key, PARTITIONS),
        offset=0,
        timestamp=NOW + 10**12,
        key=key,
        value=value,
        headers=headers,
    )
    return decode_interaction(record, PARTITIONS, 600_000)


@pytest.mark.parametrize("bad", bad_messages("13085", "85123A", NOW), ids=lambda bad: bad.what)
def test_every_broken_message_of_the_demo_is_refused(bad: object) -> None:
    assert isinstance(arrive(bad.key, bad.value, bad.headers), Rejected)  # type: ignore[attr-defined]


def test_the_broken_messages_break_in_different_ways() -> None:
    found = [arrive(b.key, b.value, b.headers) for b in bad_messages("13085", "85123A", NOW)]
    assert {r.reason for r in found if isinstance(r, Rejected)} == {
        *("not_json", "invalid", "future", "too_large", "wrong_key")
    }


def test_a_shopping_trip_is_accepted_in_the_order_of_time() -> None:
    trip = shopping_trip("13085", ["a", "b", "c", "d"], NOW)
    events = [arrive(message.key, message.value) for message in trip]
    assert all(isinstance(event, Interaction) for event in events)
    kinds = [event.type.value for event in events if isinstance(event, Interaction)]
    assert kinds == ["view", "click", "cart", "purchase", "purchase"]
    times = [message.event_time for message in trip]
    assert times == sorted(set(times), key=lambda at: at or 0)


def test_the_theme_is_the_one_that_the_customer_knows_least() -> None:
    titles = {"1": "TEA CUP", "2": "TEA POT", "3": "CAKE TIN", "4": "CAKE FORK", "5": "STEAMER"}
    sold = {"4": 9, "3": 2}
    assert choose_theme(titles, sold, {"1"}, ("TEA", "CAKE"), 2) == ("CAKE", ["4", "3"])
    with pytest.raises(StackError, match="no theme"):
        choose_theme(titles, sold, set(), ("TEA",), 3)


def test_the_live_part_of_the_sample_comes_after_the_past() -> None:
    sample = load_sample(events=2_000)
    assert len(sample.past) + len(sample.live) == 2_000
    assert sample.begins == min(m.event_time or 0 for m in sample.past)
    assert max(m.event_time or 0 for m in sample.past) <= sample.live_since <= sample.ends
    assert sample.evidence_of_rank(1) >= sample.evidence_of_rank(5) > 0
