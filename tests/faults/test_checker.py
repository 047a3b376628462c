"""The checker finds each kind of broken promise, and nothing where there is none."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.checker import (
    Finding,
    Sequenced,
    State,
    check_ledger,
    check_offsets,
    check_served,
    check_states,
    total,
)
from tests.faults.ledger import Entry, Ledger
from tests.faults.oracle import Expected

SENT = [Entry("interactions", 0, 0, b"u", b"a"), Entry("interactions", 0, 1, b"u", b"b")]
HELD = [(1, "e1", "tea", "view", 0), (2, "e2", "cup", "view", 1)]
MUST = {"ada": Expected(held=HELD, applied=1)}
GOOD = State(held=HELD, applied=1)


def verdicts(findings: list[Finding]) -> dict[str, int]:
    return {verdict: total(findings, verdict) for verdict in ("lost", "doubled", "wrong")}


NOTHING = {"lost": 0, "doubled": 0, "wrong": 0}


def test_the_ledger_holds_what_was_acknowledged() -> None:
    ledger = Ledger()
    for entry in SENT:
        ledger.tried()
        ledger.acknowledged(entry)
    assert ledger.snapshot() == SENT
    assert (ledger.sent, ledger.by_topic()) == (2, {"interactions": 2})


def test_an_acknowledged_record_that_is_gone_or_another_is_lost() -> None:
    whole = {("interactions", 0): {0: b"a", 1: b"b"}}
    assert check_ledger(SENT, whole, "Kafka") == []
    assert total(check_ledger(SENT, {("interactions", 0): {0: b"a"}}, "Kafka"), "lost") == 1
    assert (
        total(check_ledger(SENT, {("interactions", 0): {0: b"a", 1: b"x"}}, "Kafka"), "lost") == 1
    )
    assert total(check_ledger(SENT, {}, "Kafka"), "lost") == 2


def test_each_offset_is_logged_once() -> None:
    kafka = {("items", 0): {0, 1, 2}}
    assert check_offsets({("items", 0): [0, 1, 2]}, kafka) == []
    found = check_offsets({("items", 0): [0, 2, 2]}, kafka)
    assert verdicts(found) == {"lost": 1, "doubled": 1, "wrong": 0}
    assert "items/0@1" in str(found[0])
    assert total(check_offsets({}, kafka), "lost") == 3


def test_a_state_as_the_oracle_says_is_found_good() -> None:
    assert check_states(MUST, {"ada": GOOD}) == []
    assert check_states({"ada": Expected()}, {}) == []


def test_a_state_without_an_event_has_lost_it() -> None:
    found = check_states(MUST, {"ada": replace(GOOD, held=HELD[:1])})
    assert verdicts(found) == {"lost": 1, "doubled": 0, "wrong": 1}
    assert verdicts(check_states(MUST, {})) == {"lost": 1, "doubled": 0, "wrong": 1}


def test_a_state_with_an_event_twice_has_doubled_it() -> None:
    twice = replace(GOOD, held=[*HELD, HELD[1]])
    assert verdicts(check_states(MUST, {"ada": twice})) == {"lost": 0, "doubled": 1, "wrong": 1}


def test_marks_and_edits_are_compared() -> None:
    for other in (
        replace(GOOD, applied=0),
        replace(GOOD, edited=3),
        replace(GOOD, pinned=["x"]),
        replace(GOOD, forbidden=["x"]),
        replace(GOOD, replaced={"now": "x"}),
        replace(GOOD, held=[HELD[0], (2, "e2", "cup", "cart", 1)]),
    ):
        assert verdicts(check_states(MUST, {"ada": other})) == NOTHING | {"wrong": 1}


def test_lists_may_repeat_but_never_go_back() -> None:
    lists = Sequenced("lists")
    for identity, applied in (("a", 5), ("b", 7), ("a", 5), ("c", 7)):
        lists.take("ada", identity, applied, "recommendations/0@1")
    assert (lists.findings(), lists.repeated, lists.last) == ([], 1, {"ada": 7})
    lists.take("eve", "d", 1, "recommendations/0@2")
    lists.take("ada", "e", 6, "recommendations/0@3")
    [found] = lists.findings()
    assert (found.verdict, found.cases) == ("wrong", 1)
    assert "recommendations/0@3 of ada: 7 → 6" in found.example
    assert lists.findings() == []


def test_the_newest_list_must_be_of_the_state() -> None:
    assert check_served(MUST, {"ada": 1}) == []
    assert check_served({"ada": Expected()}, {}) == []
    assert total(check_served(MUST, {"ada": 0}), "wrong") == 1
    assert total(check_served(MUST, {}), "wrong") == 1
