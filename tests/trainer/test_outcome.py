"""What is remembered from one run to the next."""

from __future__ import annotations

from trainer.gate import Verdict
from trainer.outcome import Memory, Outcome


def judged(anchor: str) -> Outcome:
    return Outcome("refused", "", verdict=Verdict("new", "old", anchor, 9, ()))


def test_the_first_release_that_served_stays_the_anchor() -> None:
    first = Memory().after(Outcome("skipped", "little is new"), 1, "base-0")
    later = first.after(judged("base-0"), 2, "taste-1")

    assert (first.anchor, later.anchor) == ("base-0", "base-0")


def test_an_anchor_that_was_replaced_is_the_new_one_from_then_on() -> None:
    assert Memory(anchor="gone").after(judged("taste-1"), 1, "taste-1").anchor == "taste-1"


def test_only_a_release_that_passed_or_a_skipped_run_is_a_success() -> None:
    passed = Memory().after(Outcome("passed", ""), 5, "base-0")
    failed = passed.after(Outcome("failed", "disk full"), 9, "base-0")

    assert (failed.last_success_ms, failed.last_run_ms) == (5, 9)
