from __future__ import annotations

from hypothesis import given

from models.profile.prompts import list_of, render
from models.schemas import AppliedEdits, InteractionType, ProfileRequest
from tests.models.profile_requests import (
    HOSTILE_TITLES,
    count_tokens,
    event,
    request_of,
    requests,
)

HEADINGS = ("Stable:", "Current:", "Now:", "Avoids:")


@given(requests())
def test_a_request_renders_to_the_same_bytes_after_a_trip_over_the_wire(
    request: ProfileRequest,
) -> None:
    again = ProfileRequest.model_validate_json(request.to_json())
    assert render(again).encode() == render(request).encode()


@given(requests())
def test_whatever_titles_say_the_prompt_keeps_its_turns_and_its_length(
    request: ProfileRequest,
) -> None:
    prompt = render(request)
    assert prompt.count("<|im_start|>") == 2
    assert prompt.count("<|im_end|>") == 1
    assert len(prompt) < 4_500
    headings = [line.split(":")[0] for line in prompt.splitlines() if line.startswith(HEADINGS)]
    assert len(headings) == len(set(headings[:-1])) + 1  # each list once, then the answer's first
    assert headings[-1] in (headings[0], "Stable")


def test_hostile_titles_stay_shortened_entries_of_the_list() -> None:
    plain = render(request_of([event(0, "Lunch bag", 100)]))
    for title in HOSTILE_TITLES:
        hostile = render(request_of([event(0, title, 100)]))
        assert abs(len(hostile) - len(plain)) < 100
        assert hostile.splitlines()[:1] == plain.splitlines()[:1]
        assert hostile.splitlines()[-2:] == plain.splitlines()[-2:]


def test_an_item_is_shown_once_under_the_newest_section_that_it_belongs_to() -> None:
    bag = [event(n, "Lunch bag", age) for n, age in enumerate((0.1, 30, 300))]
    prompt = render(request_of([*bag, event(9, "Cake tins", 200)]))
    assert "Stable: Cake tins\n" in prompt
    assert "Now: Lunch bag\n" in prompt
    assert prompt.count("Lunch bag") == 1


def test_the_answer_begins_with_the_first_section_that_has_something_of_its_own() -> None:
    assert render(request_of([event(0, "Mug")])).endswith("assistant\nNow:")
    assert render(request_of([event(0, "Mug", 20)])).endswith("assistant\nCurrent:")
    assert render(request_of([event(0, "Mug", 200)])).endswith("assistant\nStable:")
    cancelled = event(0, "Mug", type=InteractionType.CANCEL)
    assert render(request_of([], [cancelled])).endswith("assistant\nAvoids:")


def test_items_named_by_a_forbidden_word_are_not_shown() -> None:
    tins = event(1, "Cake tins", 100, review="good for Wine too")
    entries = [event(0, "Wine glass", 100), tins]
    prompt = render(request_of(entries, edits=AppliedEdits(forbidden=("wines",))))
    assert "Wine" not in prompt
    assert "Cake tins" in prompt


def test_the_start_of_a_review_stands_beside_its_item() -> None:
    prompt = render(request_of([event(0, "Cake tins", 100, review="sturdy; " + "nice " * 50)]))
    assert "Stable: Cake tins (sturdy, nice nice" in prompt
    assert len(prompt) < len(render(request_of([event(0, "Cake tins", 100)]))) + 70


def test_a_history_of_500_long_titles_costs_at_most_1000_tokens() -> None:
    entries = [event(n, f"{n} " + "antique porcelain lantern " * 9, n / 2) for n in range(500)]
    assert count_tokens(render(request_of(entries, entries[:16]))) <= 1_000


def test_the_list_is_what_the_prompt_shows() -> None:
    request = request_of([event(0, "Lunch bag", 100), event(1, "Mug")])

    assert f"user\n{list_of(request)}\n\n" in render(request)
