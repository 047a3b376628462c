"""Schedules and reports: the same seed gives the same faults, and every kind comes up."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from models.errors import SettingsError
from tests.faults.checker import Finding
from tests.faults.driver import Outcome
from tests.faults.kinds.inputs import poisonous
from tests.faults.oracle import Expected, Oracle
from tests.faults.registry import KINDS, Fault, chosen
from tests.faults.report import summary, table
from tests.faults.schedule import TOGETHER, schedule
from tests.faults.traffic import Traffic


def kind(name: str, alone: bool = False, weight: int = 1) -> Fault:
    return Fault(name, "nothing", lambda system, chance: iter(()), alone, weight)


KINDS_OF_TEST = [kind("a"), kind("b"), kind("c", alone=True), kind("d", alone=True, weight=3)]


def names(groups: list[list[Fault]]) -> list[list[str]]:
    return [[one.name for one in group] for group in groups]


def test_a_seed_gives_one_schedule_and_another_seed_another() -> None:
    first = names(schedule(KINDS_OF_TEST, 40, seed=1))
    assert first == names(schedule(KINDS_OF_TEST, 40, seed=1))
    assert first != names(schedule(KINDS_OF_TEST, 40, seed=2))


def test_kinds_come_as_often_as_they_weigh() -> None:
    drawn = Counter(name for group in names(schedule(KINDS_OF_TEST, 60, 5)) for name in group)
    assert drawn == {"a": 10, "b": 10, "c": 10, "d": 30}


def test_a_fault_that_stands_alone_has_a_check_of_its_own() -> None:
    groups = schedule(KINDS_OF_TEST, 60, 5)
    assert all(len(group) == 1 for group in groups if any(one.alone for one in group))
    assert max(map(len, schedule([kind("a"), kind("b")], 20, 1))) == TOGETHER


def test_every_kind_is_registered_with_a_promise() -> None:
    assert len(chosen([])) == len(KINDS) >= 40
    assert all(one.promise and one.weight > 0 for one in KINDS.values())
    assert [one.name for one in chosen(["poison"])] == ["poison"]
    assert {"tracker-suspended"} < {one.name for one in chosen(["tracker-susp*"])}


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="earthquake"):
        chosen(["earthquake"])


def test_poison_is_of_nobody_whom_the_oracle_knows() -> None:
    chance, oracle = random.Random(3), Oracle(set(Traffic(1).users))
    for _ in range(500):
        oracle.take_interaction(0, b"stranger", poisonous("interactions", chance))
        oracle.take_edit(0, b"stranger", poisonous("profile-edits", chance))
    assert set(map(repr, oracle.states.values())) == {repr(Expected())}


def test_traffic_is_the_same_for_a_seed_and_has_repeats_lateness_and_edits() -> None:
    first, again = Traffic(4), Traffic(4)
    sent = [first.next() for _ in range(2_000)]
    assert sent == [again.next() for _ in range(2_000)]
    assert Counter(one.topic for one in sent)["profile-edits"] > 5
    assert len(set(sent)) < len(sent)
    assert {one.key for one in first.round()} == {user.encode() for user in first.users}


def test_what_was_forgotten_is_not_sent_again() -> None:
    traffic = Traffic(4, users=2)
    before = {traffic.next().value for _ in range(500)}
    assert traffic.forget("u0").topic == "profile-edits"
    after = [traffic.next() for _ in range(500)]
    again = [one for one in after if one.value in before and one.topic == "interactions"]
    assert {one.key for one in again if one.value.startswith(b"{")} == {b"u1"}


def test_the_report_counts_by_kind_and_leaves_out_what_was_skipped() -> None:
    outcomes = [
        Outcome(["a", "b"], skipped={"b": "no root"}, converged_s=4.0),
        Outcome(["a"], findings=[Finding("lost", "gone", 3, "e.g. x")], ended=["tracker-0: why"]),
        Outcome(["a"], converged_s=8.0),
    ]
    told = summary(outcomes, seed=1, commit="abc")
    assert (told["faults"], told["lost"], told["wrong"], told["skipped"]) == (
        3,
        3,
        0,
        {"b": "no root"},
    )
    row = told["by_kind"]["a"]
    assert (row["faults"], row["failed"], row["lost"], row["ended"]) == (3, 1, 3, 1)
    assert (row["converged_median_s"], row["converged_max_s"]) == (6.0, 8.0)
    assert "| a | 3 | 1 | 3 | 0 | 0 | 6.0 | 8.0 |" in table(told)
    assert "b" not in told["by_kind"]
