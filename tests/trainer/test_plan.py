"""What a killed run goes on with, and when it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainer import plan

UNTIL = {"interactions": {0: 7, 1: 3}, "items": {0: 2}, "profile-edits": {}}
LATER = {"interactions": {0: 9, 1: 3, 2: 1}, "items": {0: 5}, "profile-edits": {0: 1}}
NOW_MS = 1_300_000_000_000


def test_a_plan_is_found_again_until_it_is_done(tmp_path: Path) -> None:
    made = plan.begin(tmp_path, "base-0", UNTIL, NOW_MS)

    assert plan.under_way(tmp_path) == made
    assert plan.why_dropped(made, "base-0", LATER, ()) is None
    plan.done(tmp_path)
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
