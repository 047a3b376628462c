"""What a killed run goes on with, and when it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainer.pipeline import json_state as kept
from trainer.pipeline import plan

UNTIL = {"interactions": {0: 7, 1: 3}, "items": {0: 2}, "profile-edits": {}}
LATER = {"interactions": {0: 9, 1: 3, 2: 1}, "items": {0: 5}, "profile-edits": {0: 1}}
NOW_MS = 1_300_000_000_000


def test_a_plan_is_found_again_until_it_is_done(tmp_path: Path) -> None:
    made = plan.begin(tmp_path, "base-0", UNTIL, NOW_MS)

    assert plan.under_way(tmp_path) == made
    assert plan.why_dropped(made, "base-0", LATER, ()) is None
    plan.end(tmp_path, None)
    assert plan.under_way(tmp_path) is None


@pytest.mark.parametrize(
    ("serving", "logged", "forgotten", "reason"),
    [
        ("taste-1", LATER, (), "taste-1 serves now"),
        ("base-0", {**LATER, "items": {0: 1}}, (), "was made anew"),
        ("base-0", LATER, ("ann",), "1 users asked to be forgotten"),
    ],
)
def test_what_cannot_be_gone_on_with_says_why(
    tmp_path: Path, serving: str, logged: dict, forgotten: tuple[str, ...], reason: str
) -> None:
    made = plan.begin(tmp_path, "base-0", UNTIL, NOW_MS)

    assert reason in (plan.why_dropped(made, serving, logged, forgotten) or "")


def test_a_plan_that_is_dropped_leaves_nothing_of_its_run(tmp_path: Path) -> None:
    made = plan.begin(tmp_path, "base-0", UNTIL, NOW_MS)
    mine = plan.run_folder(tmp_path, made, "key")
    others = plan.run_folder(tmp_path, replace(made, release="r-other"), "key")
    for folder in (mine, others):
        folder.mkdir(parents=True)

    plan.drop(tmp_path, made)

    assert (mine.exists(), others.exists(), plan.under_way(tmp_path)) == (False, True, None)


def test_a_name_that_is_taken_is_not_given_again(tmp_path: Path) -> None:
    first = plan.begin(tmp_path, "base-0", UNTIL, NOW_MS)
    second = plan.begin(tmp_path, "base-0", UNTIL, NOW_MS, {first.release})

    assert second.release > first.release


def test_a_plan_in_another_layout_is_no_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"release": "r-1", "until": {"0": 7}}')

    assert plan.under_way(tmp_path) is None


HELD_BACK = plan.Fate("the gate held it back", judged_by="gate-1")


def ended(folder: Path, fate: plan.Fate = HELD_BACK) -> plan.Ended:
    plan.begin(folder, "base-0", UNTIL, NOW_MS, (), "settings-1")
    plan.end(folder, fate)
    found = plan.ended_from(folder, "base-0")
    assert found is not None
    return found


def test_a_run_that_ended_is_not_repeated_on_the_same_data(tmp_path: Path) -> None:
    last = ended(tmp_path)
    said = plan.why_not_again(last, "settings-1", LATER, least=4) or ""

    assert plan.under_way(tmp_path) is None
    assert said.startswith(f"{last.plan.release} was made of this data, and the gate held it back")
    assert "3 events came since" in said


def test_the_command_that_is_named_lets_the_release_serve(tmp_path: Path) -> None:
    """What the gate held back is promoted only by --force."""
    refused = ended(tmp_path)
    passed = ended(tmp_path, plan.Fate("was not promoted"))
    said = [plan.why_not_again(one, "settings-1", LATER, 4) or "" for one in (refused, passed)]

    assert f"promote {refused.plan.release} --force lets it serve; with other settings" in said[0]
    assert f"promote {passed.plan.release} lets it serve; more events" in said[1]


def test_only_what_the_gate_held_back_may_pass_by_other_settings_of_the_gate(
    tmp_path: Path,
) -> None:
    refused = ended(tmp_path)

    assert (refused.may_pass("gate-1"), refused.may_pass("gate-2")) == (False, True)
    assert not ended(tmp_path, plan.Fate("was not promoted")).may_pass("gate-2")


def test_a_run_to_be_judged_again_goes_on_from_all_that_the_ended_one_kept(tmp_path: Path) -> None:
    last = ended(tmp_path).plan
    run = plan.run_folder(tmp_path, last, "key")
    for name in (f"{last.release}.answers", "base-0.answers"):
        (run / "gate").mkdir(parents=True, exist_ok=True)
        (run / "gate" / name).write_text(name)
    made = plan.again(tmp_path, last, NOW_MS, {last.release})
    taken_over = plan.run_folder(tmp_path, made, "key") / "gate"

    assert made.release != last.release
    assert replace(made, release=last.release) == last
    assert plan.under_way(tmp_path) == made
    assert {path.name for path in taken_over.iterdir()} == {
        f"{made.release}.answers",
        "base-0.answers",
    }
    assert not run.exists()


@pytest.mark.parametrize(
    ("learning", "logged", "least"),
    [
        ("settings-2", LATER, 4),
        ("settings-1", {**LATER, "items": {0: 1}}, 4),
        ("settings-1", LATER, 3),
    ],
    ids=["other settings", "the log was made anew", "enough is new"],
)
def test_what_makes_another_release_is_no_repetition(
    tmp_path: Path, learning: str, logged: dict, least: int
) -> None:
    assert plan.why_not_again(ended(tmp_path), learning, logged, least) is None


def ended_beside(folder: Path, parent: str) -> str:
    """A run from `parent` has made a release and ended; its name."""
    made = plan.begin(folder, parent, UNTIL, NOW_MS, (), "settings-1")
    plan.end(folder, plan.Fate(f"went on from {parent}"))
    return made.release


def test_a_run_is_remembered_though_others_from_other_releases_ended_since(tmp_path: Path) -> None:
    """As after a rollback past a release from which training has gone on already."""
    first = ended_beside(tmp_path, "r-1")
    ended_beside(tmp_path, "r-2")
    found = plan.ended_from(tmp_path, "r-1")

    assert found is not None
    assert (found.plan.release, found.fate.said) == (first, "went on from r-1")
    assert plan.ended_from(tmp_path, "r-3") is None


def test_of_the_runs_from_one_release_the_last_is_remembered_and_of_all_the_newest(
    tmp_path: Path,
) -> None:
    for parent in ("r-0", "again", *(f"r-{n}" for n in range(1, 15)), "again"):
        ended_beside(tmp_path, parent)
    assert plan.ended_from(tmp_path, "r-0") is not None
    ended_beside(tmp_path, "r-15")

    assert plan.ended_from(tmp_path, "r-0") is None
    assert all(plan.ended_from(tmp_path, name) for name in ("r-1", "r-15", "again"))


def test_a_memory_of_ended_runs_in_another_layout_is_left_out(tmp_path: Path) -> None:
    kept.write(tmp_path / "ended.json", ["r-1"])

    assert plan.ended_from(tmp_path, "base-0") is None


def test_a_run_that_made_nothing_leaves_the_last_one_remembered(tmp_path: Path) -> None:
    last = ended(tmp_path)
    plan.begin(tmp_path, "base-0", LATER, NOW_MS, {last.plan.release})
    plan.end(tmp_path, None)

    assert plan.ended_from(tmp_path, "base-0") == last


def test_a_plan_gone_on_with_by_other_settings_says_so(tmp_path: Path) -> None:
    made = plan.begin(tmp_path, "base-0", UNTIL, NOW_MS, (), "settings-1")

    assert plan.with_learning(tmp_path, made, "settings-2").learning == "settings-2"
    assert plan.under_way(tmp_path) == replace(made, learning="settings-2")


def test_what_was_begun_with_other_settings_is_named(tmp_path: Path) -> None:
    made = plan.begin(tmp_path, "base-0", UNTIL, NOW_MS)
    plan.run_folder(tmp_path, made, "key-1").mkdir(parents=True)
    plan.run_folder(tmp_path, replace(made, release="r-other"), "key-2").mkdir()

    assert plan.set_aside(tmp_path, made, "key-1") is None
    assert f"{made.release}-key-1 in" in (plan.set_aside(tmp_path, made, "key-2") or "")
