"""Answers to learn from: grounded by construction, short, nothing said twice."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.profile.evidence import LABELS, section_events
from models.profile.grounding import content_stems, grounded, statements
from models.profile.prompts import first_section, render, shown_events
from models.schemas import InteractionType, ProfileRequest, Section
from tests.models.profile_requests import titles as hostile_titles
from tests.trainer.asked import asked
from trainer.data.target_answers import MAX_WORDS, WordWeights, target_answer, target_phrases

CATALOGUE = [
    "White hanging heart t-light holder",
    "Red hanging heart t-light holder",
    "Set of 3 black flying ducks",
    "Set of 3 coloured flying ducks",
    "Vinyl record frame silver",
    "Black record cover frame",
    "Lunch box with cutlery retrospot",
    "Box of 6 assorted colour teaspoons",
    "Picture frame wood white finish",
]
WEIGHTS = WordWeights.of(CATALOGUE)


def test_the_main_words_of_each_item_are_kept_in_their_order() -> None:
    request = asked(now=["Lunch box with cutlery retrospot", "Vinyl record frame silver"])

    assert target_answer(request, WEIGHTS) == " Cutlery retrospot; Vinyl record frame"


def test_items_that_share_words_are_said_once() -> None:
    request = asked(now=["Set of 3 black flying ducks", "Set of 3 coloured flying ducks"])

    assert target_answer(request, WEIGHTS) == " Flying ducks"


def test_the_answer_goes_on_from_the_prompt_s_last_line() -> None:
    request = asked(now=["Vinyl record frame silver"], avoids=["Set of 3 black flying ducks"])

    assert render(request).endswith("\nNow:")
    assert target_answer(request, WEIGHTS) == " Vinyl record frame\nAvoids: Black flying ducks"


def test_sizes_packing_and_surfaces_are_left_out() -> None:
    request = asked(now=["Box of 6 assorted colour teaspoons", "Picture frame wood white finish"])

    assert target_phrases(request, WEIGHTS)[Section.NOW] == ("Teaspoons", "Picture frame wood")


def test_a_box_is_kept_where_it_is_the_item() -> None:
    few = WordWeights.of(["Lunch box pink", "Cup", "Mug"])

    assert target_answer(asked(now=["Pink lunch box"]), few) == " Pink lunch box"


def test_nothing_to_say_is_no_answer() -> None:
    assert target_answer(asked(now=["Set of 6"]), WEIGHTS) is None
    assert target_answer(asked(), WEIGHTS) is None


def test_rare_words_weigh_more_and_colours_half() -> None:
    # 9 texts: "frame" is in 3 of them, ln(10 / 3.5); "black" in 2, ½ · ln(10 / 2.5)
    assert WEIGHTS.of_word("frame") == pytest.approx(1.0498, abs=1e-4)
    assert WEIGHTS.of_word("black") == pytest.approx(0.6931, abs=1e-4)
    assert WEIGHTS.of_word("zebra") > WEIGHTS.of_word("ducks") > WEIGHTS.of_word("frame")


WORDS = (
    "set of 3 red black heart holder t-light ducks frame box lunch & and with pink/blue oz 12cm "
    "likes, vintage 'n' bag, flying sign metal not é ♥ of-the"
)
vocabulary = st.sampled_from(WORDS.split())
titles = st.lists(vocabulary, min_size=1, max_size=7).map(" ".join) | hostile_titles
some = st.lists(titles, max_size=6)
requests = st.builds(asked, now=some, current=some, stable=some, avoids=some)


@given(requests)
@example(asked(avoids=["AA.AO"]))
@example(asked(avoids=["NOTHING"]))
def test_every_statement_passes_the_check_of_its_section(request: ProfileRequest) -> None:
    answer = target_answer(request, WEIGHTS)
    events = section_events(request)

    said = list(statements(answer or "", first_section(events)))
    assert all(grounded(text, section, events[section]) for section, text in said)
    kept = target_phrases(request, WEIGHTS)
    if answer is not None:
        assert len(said) == sum(map(len, kept.values()))


@given(requests)
def test_answers_are_short_and_say_nothing_twice(request: ProfileRequest) -> None:
    kept = target_phrases(request, WEIGHTS)

    assert all(len(text.split()) <= MAX_WORDS for said in kept.values() for text in said)
    for avoided in (False, True):
        keys = [
            content_stems(text, section)
            for section, said in kept.items()
            for text in said
            if (section is Section.AVOIDS) == avoided
        ]
        assert len(keys) == len(set(keys))


@given(requests)
def test_headings_come_in_the_order_of_the_prompt(request: ProfileRequest) -> None:
    answer = target_answer(request, WEIGHTS)
    shown = list(shown_events(section_events(request)))

    if answer is not None:
        headings = [line.split(":")[0] for line in answer.split("\n")[1:]]
        told = [LABELS[shown[0]], *headings]
        assert told == [LABELS[section] for section in shown if LABELS[section] in told]


def test_what_was_sent_back_is_said_under_avoids_only() -> None:
    request = asked(avoids=["Set of 3 black flying ducks"])

    assert request.windows.avoids[0].type is InteractionType.CANCEL
    assert target_phrases(request, WEIGHTS) == {Section.AVOIDS: ("Black flying ducks",)}
