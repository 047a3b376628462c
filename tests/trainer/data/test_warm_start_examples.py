"""Sessions become prompts with answers, at the moments at which the live system asks."""

from __future__ import annotations

from dataclasses import replace

from models.settings import WindowSettings
from tests.trainer.users import HOUR_MS, NOW_MS, session
from trainer.data.target_answers import WordWeights, examples, moments, requests

DAY_MS = 24 * HOUR_MS
TEXTS = {"a": "Vinyl record frame", "b": "Flying ducks", "c": "Metal sign"}
WEIGHTS = WordWeights.of(TEXTS.values())


def test_a_session_is_asked_about_before_its_visit_and_after_the_one_before() -> None:
    weeks_later = replace(session("u", ("a", "b"), ("c",)), as_of=NOW_MS + 21 * DAY_MS)

    before, after = moments(weeks_later)

    assert before.as_of == NOW_MS + 21 * DAY_MS
    assert after.as_of == weeks_later.history[-1].timestamp + HOUR_MS
    assert after.history == weeks_later.history


def test_visits_close_together_are_one_moment() -> None:
    assert [one.as_of for one in moments(session("u", ("a", "b"), ("c",)))] == [NOW_MS]


def test_each_prompt_comes_once_with_its_answer() -> None:
    weeks_later = replace(session("u", ("a", "b"), ("c",)), as_of=NOW_MS + 21 * DAY_MS)

    found = examples(
        requests([weeks_later, weeks_later], WindowSettings(), TEXTS.__getitem__), WEIGHTS
    )

    assert [one.prompt.split("assistant\n")[1] for one in found] == ["Current:", "Now:"]
    assert [one.answer for one in found] == [" Vinyl record frame; Flying ducks"] * 2


def test_a_history_of_which_nothing_can_be_said_gives_no_example() -> None:
    only = session("u", ("x",), ("c",))

    assert examples(requests([only], WindowSettings(), lambda _: ""), WEIGHTS) == []
