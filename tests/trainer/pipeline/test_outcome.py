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


LITTLE = RunOutcome("skipped", "little is new")


def test_a_release_that_surely_ranks_above_the_anchor_takes_its_place_when_it_serves() -> None:
    r1 = passed("r-1", "base-0", {"serving": 0.01, "anchor": 0.01})
    first = RunMemory().after(r1, 1, "base-0")
    not_promoted = first.after(LITTLE, 2, "base-0")
    promoted = first.after(LITTLE, 2, "r-1", r1.verdict)

    assert (first.anchor, not_promoted.anchor, promoted.anchor) == ("base-0", "base-0", "r-1")


def test_a_release_that_may_be_no_better_leaves_the_anchor_where_it_is() -> None:
    r1 = passed("r-1", "base-0", {"serving": -1e-3, "anchor": 0.0})
    first = RunMemory().after(r1, 1, "base-0")

    assert first.after(LITTLE, 2, "r-1", r1.verdict).anchor == "base-0"


def test_one_that_the_gate_held_back_is_no_anchor_though_it_was_forced_to_serve() -> None:
    checks = (Check("anchor", True, 0.03, -0.004, ""), Check("length", False, 1.0, 0.5, ""))
    held_back = Verdict("r-1", "base-0", "base-0", 9, checks)

    assert RunMemory(anchor="base-0").after(LITTLE, 2, "r-1", held_back).anchor == "base-0"


def test_the_next_anchor_is_one_that_ranks_above_the_new_one_not_only_above_the_old() -> None:
    """r-2 loses against r-1, which becomes the anchor with this very run."""
    r1 = passed("r-1", "base-0", {"serving": 0.03, "anchor": 0.03})
    r2 = passed("r-2", "r-1", {"serving": -0.002, "anchor": 0.028})
    second = RunMemory().after(r1, 1, "base-0").after(r2, 2, "r-1", r1.verdict)

    assert second.after(LITTLE, 3, "r-2", r2.verdict).anchor == "r-1"


def test_an_anchor_that_was_replaced_is_the_new_one_from_then_on() -> None:
    assert RunMemory(anchor="gone").after(judged("taste-1"), 1, "taste-1").anchor == "taste-1"


def test_after_a_rollback_what_ranked_above_the_old_anchor_is_no_heir() -> None:
    r3 = passed("r-3", "r-2", {"serving": 0.02, "anchor": 0.02})

    assert RunMemory(anchor="r-1").after(LITTLE, 1, "r-3", r3.verdict).anchor == "r-1"


def test_only_a_release_that_passed_or_a_skipped_run_is_a_success() -> None:
    passed = RunMemory().after(RunOutcome("passed", ""), 5, "base-0")
    failed = passed.after(RunOutcome("failed", "disk full"), 9, "base-0")

    assert (failed.last_success_ms, failed.last_run_ms) == (5, 9)


def test_a_run_that_is_skipped_because_a_release_may_not_serve_is_no_success() -> None:
    refused = RunMemory(last_success_ms=3).after(judged("base-0"), 5, "base-0")
    again = refused.after(RunOutcome("skipped", "was made before", unserved=True), 9, "base-0")
    little = again.after(RunOutcome("skipped", "little is new"), 11, "base-0")

    assert [one.last_success_ms for one in (refused, again, little)] == [3, 3, 11]
