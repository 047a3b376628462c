from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.profile.assembly import Composed, compose
from models.profile.evidence import Forbidden
from models.profile.grounding import content_stems
from models.profile.negation import said_stems
from models.schemas import AppliedEdits, InteractionType, Origin, ProfileRequest, Section
from models.text import clean, words
from tests.models.profile_requests import HOSTILE_TITLES, count_tokens, event, request_of, requests

BAGS = [event(n, f"Lunch bag {n_th}", 100 + n) for n, n_th in enumerate(("red", "blue", "suki"))]
MUG = event(9, "Pink polkadot mug", 1)
CLOCK = event(10, "Alarm clock", 5, type=InteractionType.CANCEL)
REQUEST = request_of([*BAGS, MUG], [CLOCK])

answers = st.one_of(
    st.none(),
    st.text(),
    st.binary(max_size=300).map(lambda raw: raw.decode(errors="replace")),
    st.lists(
        st.sampled_from(
            ["Stable:", "Now:", "\n", ";", "lunch bags", "mug", "bombs", *HOSTILE_TITLES]
        )
    ).map(" ".join),
)


def said(composed: Composed, section: str) -> list[tuple[str, str]]:
    return [(s.origin.value, s.text) for s in getattr(composed.sections, section)]


def test_supported_statements_are_kept_with_their_evidence() -> None:
    composed = compose(REQUEST, " lunch bags\nNow: polkadot mug\nAvoids: clock", count_tokens)
    assert said(composed, "stable") == [("model", "Lunch bags")]
    assert composed.sections.stable[0].evidence == ("event-0", "event-1", "event-2")
    assert (
        composed.text
        == (
            "Stable taste: Lunch bags\n"
            "Current interests: Lately buys pink polkadot mug\n"
            "Right now: Polkadot mug\n"
            "Avoids: Clock"
        )
        or composed.text == "Stable taste: Lunch bags\nRight now: Polkadot mug\nAvoids: Clock"
    )
    assert composed.counts.kept == 3


def test_a_rejected_sentence_is_counted_and_an_extractive_one_stands_in() -> None:
    composed = compose(REQUEST, " a dedicated foodie; lunch bags", count_tokens)
    assert composed.counts.rejected == 1
    assert said(composed, "stable") == [
        ("model", "Lunch bags"),
        ("extractive", "Often buys lunch bag, such as lunch bag red"),
    ]


def test_without_stand_ins_only_what_the_model_may_say_is_left() -> None:
    composed = compose(REQUEST, " a dedicated foodie; lunch bags", count_tokens, stand_ins=False)
    assert composed.text == "Stable taste: Lunch bags"
    assert (composed.counts.kept, composed.counts.rejected) == (1, 1)
    assert compose(REQUEST, None, count_tokens, stand_ins=False).text == ""


def test_without_a_model_the_profile_is_built_from_the_events() -> None:
    composed = compose(REQUEST, None, count_tokens)
    assert composed.text == (
        "Stable taste: Often buys lunch bag, such as lunch bag red\n"
        "Right now: Just bought pink polkadot mug\n"
        "Avoids: Sent back alarm clock"
    )
    assert (composed.counts.kept, composed.counts.extractive) == (0, 3)


def test_repeated_statements_are_said_once_and_not_counted_as_rejected() -> None:
    composed = compose(REQUEST, " lunch bags; lunch bag; lunch bags", count_tokens)
    assert said(composed, "stable") == [("model", "Lunch bags")]
    assert composed.counts.rejected == 0


@given(requests(), answers)
def test_any_answer_to_any_request_composes_within_the_budget(
    request: ProfileRequest, answer: str | None
) -> None:
    composed = compose(request, answer, count_tokens)
    assert count_tokens(composed.text) <= 256
    windows = request.windows
    if windows.long or windows.avoids:
        assert composed.text or not windows.long
    known = {entry.event_id for entry in (*windows.long, *windows.avoids)}
    for section in Section:
        for sentence in getattr(composed.sections, section.value):
            assert sentence.text in composed.text
            assert set(sentence.evidence) <= known
            assert sentence.evidence


@given(requests(), answers)
def test_every_sentence_of_the_model_is_supported_by_its_own_section(
    request: ProfileRequest, answer: str | None
) -> None:
    windows = request.windows
    entries = {
        Section.STABLE: windows.long,
        Section.CURRENT: windows.medium,
        Section.NOW: windows.short,
        Section.AVOIDS: windows.avoids,
    }
    composed = compose(request, answer, count_tokens)
    for section, window in entries.items():
        texts = {entry.event_id: entry.text for entry in window}
        for sentence in getattr(composed.sections, section.value):
            if sentence.origin is Origin.MODEL:
                cited = frozenset().union(
                    *(said_stems(clean(texts[one], 120)) for one in sentence.evidence)
                )
                assert content_stems(sentence.text, section) <= cited


def test_a_completion_cannot_bring_in_what_a_hostile_title_asks_for() -> None:
    request = request_of([event(0, HOSTILE_TITLES[0], 100), *BAGS])
    composed = compose(request, " the user hates lunch bags; diamonds and gold", count_tokens)
    assert composed.counts.kept == 0
    assert "diamonds" not in composed.text.casefold()


def test_items_without_text_are_said_to_be_undescribed() -> None:
    composed = compose(request_of([event(0, "", 3), event(1, "", 9, item_id="b")]), None, len)
    assert composed.text == "Current interests: Chose 2 items not described yet"
    assert composed.sections.current[0].evidence == ("event-0", "event-1")


def test_no_events_make_an_empty_profile() -> None:
    assert compose(request_of([]), " lunch bags", count_tokens).text == ""


class TestEdits:
    def test_pinned_sentences_stand_first_and_are_the_users_own(self) -> None:
        edits = AppliedEdits(pinned=("I collect teapots.",))
        composed = compose(request_of(BAGS, edits=edits), " lunch bags", count_tokens)
        assert said(composed, "stable")[0] == ("user", "I collect teapots.")
        assert said(composed, "stable")[1] == ("model", "Lunch bags")

    def test_a_replaced_section_says_what_the_user_wrote_and_nothing_else(self) -> None:
        edits = AppliedEdits(replaced=(("stable", "Only teapots"),))
        composed = compose(request_of(BAGS, edits=edits), " lunch bags; yachts", count_tokens)
        assert said(composed, "stable") == [("user", "Only teapots")]
        assert composed.counts.rejected == 0

    @given(
        request=requests(
            edits=AppliedEdits(
                pinned=("My lunch bag", "Tea"),
                forbidden=("Lunch", "cake tin", "stable", "bought", "\x00"),
                replaced=(("now", "lunches"),),
            )
        ),
        answer=answers,
    )
    def test_a_forbidden_word_never_appears(
        self, request: ProfileRequest, answer: str | None
    ) -> None:
        text = compose(request, answer, count_tokens).text
        assert not {"lunch", "lunches", "stable", "bought"} & set(words(text))
        assert "cake tin" not in text.casefold()

    @given(st.integers(16, 256), st.text(min_size=100, max_size=3000))
    def test_a_long_pinned_text_leaves_room_for_every_section(
        self, max_tokens: int, pinned: str
    ) -> None:
        edits = AppliedEdits(pinned=(pinned, "word " * 900))
        request = request_of([*BAGS, MUG], [CLOCK], edits)
        composed = compose(request, None, count_tokens, max_tokens)
        assert count_tokens(composed.text) <= max_tokens
        if max_tokens >= 100:
            assert composed.sections.now
            assert composed.sections.avoids

    @pytest.mark.parametrize("counter", [len, lambda text: len(text.split())])
    def test_the_budget_is_kept_by_any_tokenizer(self, counter: object) -> None:
        request = request_of([event(n, "word " * 30 + str(n), n * 20) for n in range(30)])
        assert counter(compose(request, None, counter).text) <= 256  # type: ignore[operator]


@pytest.mark.parametrize(
    ("forbidden", "text", "found"),
    [
        ("傘", "赤い傘セット", True),
        ("青い傘", "赤い傘セット", False),
        ("किताब", "हिन्दी किताब", True),
        ("कताब", "हिन्दी किताब", False),
        ("สีแดง", "เสื้อยืดสีแดง", True),
        ("tea", "Steak knife", False),
    ],
)
def test_a_forbidden_word_is_found_in_every_script(forbidden: str, text: str, found: bool) -> None:
    assert Forbidden([forbidden]).found_in(text) is found


def test_themes_and_lists_are_told_in_whole_words_of_every_script() -> None:
    titles = ("लाल साड़ी कपड़ा", "नीली साड़ी कपड़ा", "हरी साड़ी कपड़ा")
    entries = [event(n, title, 200 + n) for n, title in enumerate(titles)]
    composed = compose(request_of(entries), None, count_tokens)
    assert "साड़ी कपड़ा" in composed.text
