"""What comes next of a run, and why, in every state and whatever stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from models.ports import InForce
from trainer.pipeline.next_step import (
    HELD_BACK,
    NOT_PROMOTED,
    Stands,
    decide,
    keeps_texts,
    next_step,
)
from trainer.pipeline.record import TRANSITIONS, RunRecord, State

UNTIL = {"interactions": {0: 7, 1: 3}, "items": {0: 2}, "profile-edits": {}}
LATER = {"interactions": {0: 9, 1: 3, 2: 1}, "items": {0: 5}, "profile-edits": {0: 1}}
BASE = InForce("base-0", 1)
RUN = RunRecord("r-1", BASE, UNTIL, "settings-1", 5, "r-1", judged_by="gate-1")
REFUSED = replace(RUN, state="refused", refused={"r-1": "gate-1"}, reason=HELD_BACK)
STANDS = Stands(
    serving=BASE,
    made=frozenset({"base-0", "r-1"}),
    held_back=frozenset(),
    logged=LATER,
    learned={},
    forgotten={},
    learning="settings-1",
    judging="gate-1",
    min_new_events=4,
)
ELSEWHERE = {
    "as it was": {},
    "it serves": {"serving": InForce("r-1", 2)},
    "another serves": {"serving": InForce("taste-1", 2)},
    "put in force again": {"serving": InForce("base-0", 3)},
}
LOGS = {"logged": LATER, "made anew": {**LATER, "items": {0: 1}}}


def all_of_a_run() -> Iterator[tuple[RunRecord, Stands]]:
    """Every state beside everything that a decision can depend on."""
    flags = [False, True]
    for state, refused in product(TRANSITIONS, ({}, {"r-0": "gate-1"}, {"r-1": "gate-1"})):
        if (state == "refused") > ("r-1" in refused):
            continue
        run = replace(RUN, state=state, refused=refused)
        for made, held_back, forgotten, promotes in product(flags, repeat=4):
            for elsewhere, logged in product(ELSEWHERE.values(), LOGS.values()):
                for learning, judging, least in product(("settings-1", "other"), (1, 2), (3, 4)):
                    names = {"base-0", *(["r-1"] if made else [])}
                    change: dict[str, Any] = {
                        "made": frozenset(names),
                        "held_back": frozenset({"r-1"} if held_back else ()),
                        "forgotten": {"r-1": int(forgotten)},
                        "promotes": promotes,
                        "logged": logged,
                        "learning": learning,
                        "judging": f"gate-{judging}",
                        "min_new_events": least,
                    }
                    yield run, replace(STANDS, **{**change, **elsewhere})


def test_every_state_has_a_next_step_of_the_table_whatever_stands() -> None:
    """Settling ends; what is left can be done, or is no hindrance."""
    count = 0
    for run, stands in all_of_a_run():
        found = decide([run], stands)
        (now,) = found.records
        count += 1
        assert all(one.why for one in (*found.settled, found.step))
        assert decide([now], stands).settled == ()
        if found.step.action == "promote":
            assert (now.state, now.parent, stands.promotes) == ("passed", stands.serving, True)
        if found.step.action == "judge again":
            assert now.state == "refused"
            assert stands.judging not in now.refused.values()
            assert now.parent == stands.serving
        if found.step.action == "resume":
            assert now.state == "planned"
    assert count > 5_000


def test_with_new_data_no_run_stands_in_the_way_of_another() -> None:
    for run, stands in all_of_a_run():
        (now,) = decide([run], stands).records
        fresh = replace(stands, min_new_events=3)  # as many as came since
        step = next_step(now, fresh)
        assert step is None or step.action in ("resume", "promote", "offer")


def test_what_never_served_is_never_settled_as_promoted() -> None:
    for run, stands in all_of_a_run():
        (now,) = decide([run], stands).records
        if now.state == "promoted":
            assert run.state == "promoted" or stands.serving.release == "r-1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"serving": InForce("taste-1", 2)}, "taste-1 serves now"),
        ({"logged": {**LATER, "items": {0: 1}}}, "was made anew"),
        ({"forgotten": {"r-1": 1}}, "1 users asked to be forgotten"),
    ],
)
def test_what_cannot_be_resumed_says_why(change: dict[str, Any], reason: str) -> None:
    planned = replace(STANDS, made=frozenset({"base-0"}))
    found = decide([RUN], replace(planned, **change))

    assert decide([RUN], planned).step.action == "resume"
    assert found.records[0].state == "dropped"
    assert reason in found.records[0].reason


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"serving": InForce("taste-1", 2)}, "superseded"),
        ({"serving": InForce("base-0", 3)}, "superseded"),
        ({"serving": InForce("r-1", 2)}, "promoted"),
        ({"forgotten": {"r-1": 1}}, "dropped"),
        ({"made": frozenset({"base-0"})}, "dropped"),
    ],
)
def test_what_passed_is_promoted_only_beside_what_it_was_compared_with(
    change: dict[str, Any], state: State
) -> None:
    passed = replace(RUN, state="passed")

    assert decide([passed], STANDS).step.action == "promote"
    assert decide([passed], replace(STANDS, promotes=False)).step.action == "offer"
    found = decide([passed], replace(STANDS, **change))
    assert (found.records[0].state, found.step.action == "promote") == (state, False)


def why(run: RunRecord, **change: Any) -> str:
    """Why a run is skipped."""
    step = next_step(run, replace(STANDS, **change))
    assert step is not None
    assert step.action == "skip"
    return step.why


def test_a_run_that_ended_is_not_repeated_on_the_same_data() -> None:
    said = why(REFUSED)

    assert said.startswith("r-1 was made of this data, and the gate held it back")
    assert "3 events came since" in said


@pytest.mark.parametrize(
    "change",
    [
        {"learning": "settings-2"},
        {"logged": {**LATER, "items": {0: 1}}},
        {"min_new_events": 3},
        {"made": frozenset({"base-0"})},
    ],
    ids=["other settings", "the log was made anew", "enough is new", "what it made is gone"],
)
def test_what_makes_another_release_is_no_repetition(change: dict[str, Any]) -> None:
    assert next_step(REFUSED, replace(STANDS, **change)) is None


def test_the_command_that_is_named_lets_the_release_serve() -> None:
    """What the gate held back is promoted only by --force."""
    offered = replace(RUN, state="offered", reason=NOT_PROMOTED)
    forced = replace(REFUSED, state="promoted")

    assert "promote r-1 --force lets it serve; with other settings of train.gate" in why(REFUSED)
    assert "promote r-1 lets it serve; more events" in why(offered)
    assert "served until another took its place" in why(forced)
    assert "promote r-1 --force lets it serve; more events" in why(forced)


def test_only_what_the_gate_held_back_is_judged_again_by_settings_that_did_not_judge_it() -> None:
    other = replace(STANDS, judging="gate-2")
    twice = replace(REFUSED, release="r-2", refused={"r-1": "gate-1", "r-2": "gate-2"})
    step = next_step(REFUSED, other)

    assert step is not None
    assert step.action == "judge again"
    assert why(replace(RUN, state="offered"), judging="gate-2")
    assert why(twice).startswith("r-1 was made of this data")
    both = frozenset({"r-1", "r-2"})
    assert why(twice, judging="gate-2", made=both).startswith("r-2 was made of this data")


def test_what_was_held_back_is_not_judged_again_over_a_rollback() -> None:
    """It may have been forced to serve, and taken back."""
    said = why(REFUSED, judging="gate-2", serving=InForce("base-0", 3))

    assert "base-0 was put in force again since" in said
    assert "judged again" not in said


def test_what_was_superseded_is_skipped_with_what_stands_now() -> None:
    left = replace(RUN, state="superseded", reason="it started from base-0, and taste-1 serves now")
    said = why(left, serving=InForce("base-0", 3))

    assert "r-1 was made of this data, and base-0 was put in force again" in said
    assert "palate releases promote r-1 lets it serve" in said


def test_texts_about_users_are_kept_to_resume_or_to_judge_again_and_no_longer() -> None:
    def kept(run: RunRecord, **change: Any) -> bool:
        return keeps_texts(run, replace(STANDS, **change))

    assert kept(RUN)
    assert kept(REFUSED)
    assert not kept(REFUSED, forgotten={"r-1": 1})
    assert not kept(REFUSED, serving=InForce("taste-1", 2))
    assert not kept(REFUSED, min_new_events=3)
    others = TRANSITIONS.keys() - {"planned", "refused"}
    assert not any(kept(replace(RUN, state=state)) for state in others)
