"""Which sessions become cases, and what they are to rank."""

from __future__ import annotations

from models.profile.prompts import render
from models.settings import WindowSettings
from tests.trainer.users import session
from trainer.data.cases import cases, prompted
from trainer.data.sessions import request_of

SPEC = WindowSettings()
ROWS = {"mug": 0, "bag": 1, "tin": 2}


def test_targets_and_seen_items_become_rows_of_the_catalogue() -> None:
    (case,) = cases([session("u", ("bag", "gone"), ("tin", "mug"))], ROWS, SPEC, mask_seen=True)

    assert case.target.next.tolist() == [2, 0]
    assert case.target.seen.tolist() == [1]


def test_an_item_that_the_user_has_is_not_wanted_when_seen_items_are_left_out() -> None:
    again = session("u", ("bag", "mug"), ("bag", "tin"))

    (masked,) = cases([again], ROWS, SPEC, mask_seen=True)
    (unmasked,) = cases([again], ROWS, SPEC, mask_seen=False)

    assert masked.target.next.tolist() == [2]
    assert (unmasked.target.next.tolist(), unmasked.target.seen.tolist()) == ([1, 2], [])


def test_a_session_without_a_rankable_next_item_is_no_case() -> None:
    found = [session("u", ("bag",), ("bag",)), session("v", ("bag",), ("unknown",))]

    assert cases(found, ROWS, SPEC, mask_seen=True) == []


def test_the_prompt_is_the_one_that_the_tracker_would_have_asked() -> None:
    (case,) = cases([session("u", ("bag",), ("tin",))], ROWS, SPEC, mask_seen=True)
    texts = {"bag": "Red lunch bag"}.__getitem__

    asked = prompted(case, SPEC, texts)

    assert asked.prompt == render(request_of(case.session, SPEC, texts))
    assert "Red lunch bag" in asked.prompt
    assert asked.target is case.target
