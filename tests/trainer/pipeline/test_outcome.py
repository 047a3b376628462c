"""What is remembered from one run to the next."""

from __future__ import annotations

from trainer.gate.decision import Check, Verdict
from trainer.pipeline.outcome import RunMemory, RunOutcome


def judged(anchor: str) -> RunOutcome:
    return RunOutcome("refused", "", verdict=Verdict("new", "old", anchor, 9, ()))


def test_the_first_release_that_served_stays_the_anchor() -> None:
    first = RunMemory().after(RunOutcome("skipped", "little is new"), 1, "base-0")
    later = first.after(judged("base-0"), 2, "taste-1")

    assert (first.anchor, later.anchor) == ("base-0", "base-0")


def passed(release: str, serving: str, bounds: dict[str, float]) -> RunOutcome:
    """`bounds`: lower bounds of the difference to serving release and anchor."""
    checks = tuple(Check(name, True, bound, -0.004, "") for name, bound in bounds.items())
    return RunOutcome("passed", "", verdict=Verdict(release, serving, "base-0", 9, checks))


def test_a_release_that_surely_ranks_above_the_anchor_takes_its_place_when_it_serves() -> None:
    first = RunMemory().after(
        passed("r-1", "base-0", {"serving": 0.01, "anchor": 0.01}), 1, "base-0"
    )
    not_promoted = first.after(RunOutcome("skipped", "little is new"), 2, "base-0")
    promoted = first.after(RunOutcome("skipped", "little is new"), 2, "r-1")

    assert (first.anchor, not_promoted.anchor, promoted.anchor) == ("base-0", "base-0", "r-1")


def test_a_release_that_may_be_no_better_leaves_the_anchor_where_it_is() -> None:
    first = RunMemory().after(
        passed("r-1", "base-0", {"serving": -1e-3, "anchor": 0.0}), 1, "base-0"
    )

    assert first.after(RunOutcome("skipped", "little is new"), 2, "r-1").anchor == "base-0"


def test_the_next_anchor_is_one_that_ranks_above_the_new_one_not_only_above_the_old() -> None:
    """r-2 loses against r-1, which becomes the anchor with this very run."""
    first = RunMemory().after(
        passed("r-1", "base-0", {"serving": 0.03, "anchor": 0.03}), 1, "base-0"
    )
    second = first.after(passed("r-2", "r-1", {"serving": -0.002, "anchor": 0.028}), 2, "r-1")

    assert second.after(RunOutcome("skipped", "little is new"), 3, "r-2").anchor == "r-1"


def test_an_anchor_that_was_replaced_is_the_new_one_from_then_on() -> None:
    assert RunMemory(anchor="gone").after(judged("taste-1"), 1, "taste-1").anchor == "taste-1"


def test_after_a_rollback_the_serving_release_is_the_anchor_and_what_ranked_above_is_no_heir() -> (
    None
):
    rolled_back = RunMemory(anchor="r-2", above="r-3").anchored_to("r-1")
    later = rolled_back.after(RunOutcome("skipped", "little is new"), 1, "r-3")

    assert (rolled_back.anchor, later.anchor) == ("r-1", "r-1")


def test_only_a_release_that_passed_or_a_skipped_run_is_a_success() -> None:
    passed = RunMemory().after(RunOutcome("passed", ""), 5, "base-0")
    failed = passed.after(RunOutcome("failed", "disk full"), 9, "base-0")

    assert (failed.last_success_ms, failed.last_run_ms) == (5, 9)


def test_a_run_that_is_skipped_because_a_release_may_not_serve_is_no_success() -> None:
    refused = RunMemory(last_success_ms=3).after(judged("base-0"), 5, "base-0")
    again = refused.after(RunOutcome("skipped", "was made before", unserved=True), 9, "base-0")
    little = again.after(RunOutcome("skipped", "little is new"), 11, "base-0")

    assert [one.last_success_ms for one in (refused, again, little)] == [3, 3, 11]
