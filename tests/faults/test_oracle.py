"""The oracle against examples written out by hand, and against the tracker's own code."""

from __future__ import annotations

import json
from collections import Counter

from models.schemas import Interaction
from models.settings import WindowSettings
from streams.tracker.reducer import Arrival, apply_interactions
from streams.tracker.state import User
from tests.faults.oracle import CAP, Expected, Oracle
from tests.faults.traffic import Traffic


def event(identity: str, at: int, **changes: object) -> bytes:
    fields = {"event_id": identity, "user_id": "ada", "item_id": "tea", "type": "view"}
    return json.dumps(fields | {"timestamp": at} | changes).encode()


def after(*values: bytes, key: bytes = b"ada") -> Expected:
    oracle = Oracle({"ada"})
    for offset, value in enumerate(values):
        oracle.take_interaction(offset, key, value)
    return oracle.states["ada"]


def ids(state: Expected) -> list[str]:
    return [entry[1] for entry in state.held]


def test_events_stand_in_the_order_of_event_time_then_id() -> None:
    state = after(event("c", 2), event("b", 1), event("a", 2))
    assert ids(state) == ["b", "a", "c"]
    assert state.applied == 2


def test_an_event_sent_again_counts_once_and_applies_nothing() -> None:
    state = after(event("a", 1), event("b", 2), event("a", 3))
    assert ids(state) == ["a", "b"]
    assert state.applied == 1


def test_the_newest_are_kept_and_what_is_too_old_is_not_applied() -> None:
    full = [event(f"e{n}", 1_000 + n) for n in range(CAP)]
    state = after(*full, event("old", 1))
    assert len(state.held) == CAP
    assert state.applied == CAP - 1
    assert ids(after(*full, event("new", 5_000)))[0] == "e1"


def test_impressions_strangers_and_what_is_no_event_change_nothing() -> None:
    nothing = (
        event("a", 1, type="impression"),
        event("b", 1, user_id="eve"),
        b"\xff",
        b"[1]",
        b"null",
        b'{"user_id": "ada"}',
        b"[" * 20_000,
    )
    assert after(*nothing) == Expected()
    assert after(event("a", 1), key=b"eve") == Expected()
    oracle = Oracle({"ada"})
    oracle.take_interaction(0, None, None)
    assert oracle.states["ada"] == Expected()


def test_edits_fold_and_forget_empties() -> None:
    oracle = Oracle({"ada"})
    oracle.take_interaction(0, b"ada", event("a", 1))
    edits = (
        {"action": "pin", "text": "likes tea"},
        {"action": "pin", "text": "likes cups"},
        {"action": "unpin", "text": "likes tea"},
        {"action": "forbid", "text": "velvet"},
        {"action": "replace", "section": "now", "text": "is travelling"},
    )
    for offset, edit in enumerate(edits):
        value = json.dumps({"edit_id": f"d{offset}", "user_id": "ada"} | edit).encode()
        oracle.take_edit(offset, b"ada", value)
    state = oracle.states["ada"]
    assert (state.pinned, state.forbidden) == (["likes cups"], ["velvet"])
    assert (state.replaced, state.edited) == ({"now": "is travelling"}, 4)
    oracle.take_edit(
        9, b"ada", b'{"edit_id": "d9", "user_id": "ada", "action": "forget", "timestamp": 1}'
    )
    assert (state.held, state.pinned, state.forbidden, state.replaced) == ([], [], [], {})
    assert (state.applied, state.edited) == (0, 9)
    again = {"edit_id": "d0", "user_id": "ada", "action": "pin", "text": "likes tea"}
    oracle.take_edit(10, b"ada", json.dumps(again).encode())
    assert (state.pinned, state.edited) == ([], 9)


def test_oracle_and_tracker_agree_on_traffic_with_repeats_and_disorder() -> None:
    traffic, spec = Traffic(seed=5, users=3), WindowSettings()
    oracle, users = Oracle(set(traffic.users)), {name: User(name) for name in traffic.users}
    sent = [one for one in (traffic.next() for _ in range(3_000)) if one.topic == "interactions"]
    for offset, one in enumerate(sent):
        oracle.take_interaction(offset, one.key, one.value)
        if one.value.startswith(b"{"):
            arrival = Arrival(Interaction.model_validate_json(one.value), offset, 0)
            apply_interactions(users[one.key.decode()], [arrival], spec, Counter())
    for name, must in oracle.states.items():
        history = [
            (e.timestamp, e.event_id, e.item_id, e.type.value, e.offset)
            for e in users[name].history
        ]
        assert (must.held, must.applied) == (history, users[name].head.applied)
    assert max(len(state.held) for state in oracle.states.values()) == CAP
