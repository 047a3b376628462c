from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.profile.evidence import Evidence, section_events
from models.profile.grounding import MAX_EVIDENCE, content_stems, grounded, statements
from models.schemas import Origin, Section
from tests.models.profile_requests import event, request_of
from tests.models.scripts import SCRIPTS, UNSPACED, title_in, told_by

BAG, MUG = "Lunch bag red retrospot", "Pink polkadot mug"


def bought(*texts: str) -> tuple[Evidence, ...]:
    entries = [event(n, text, 100 - n) for n, text in enumerate(texts)]
    return section_events(request_of(entries))[Section.STABLE]


@pytest.mark.parametrize(
    "statement",
    ["lunch bags", "Often buys red lunch bags", "Lunch bags and pink mugs", "retrospot, mug"],
)
def test_a_statement_in_words_of_the_events_is_kept(statement: str) -> None:
    kept = grounded(statement, Section.STABLE, bought(BAG, MUG))
    assert kept is not None
    assert kept.origin is Origin.MODEL


@pytest.mark.parametrize(
    "statement",
    [
        "A dedicated foodie",  # said of things never bought
        "pink lunch bags",  # blended from two items
        "lunch bags and yachts",  # half true
        "does not like lunch bags",  # turned round
        "avoids lunch bags",
        "likes various items",  # true of anyone
        "buys 12",  # no such number
        "",
        "🫖",
    ],
)
def test_a_statement_that_no_single_event_bears_out_is_rejected(statement: str) -> None:
    assert grounded(statement, Section.STABLE, bought(BAG, MUG)) is None


def test_dislikes_are_told_of_dislikes_only_and_likes_of_likes() -> None:
    assert grounded("sent back lunch bags", Section.AVOIDS, bought(BAG)) is not None
    assert grounded("loves lunch bags", Section.AVOIDS, bought(BAG)) is None
    assert grounded("loves lunch bags", Section.STABLE, bought(BAG)) is not None


def test_evidence_is_the_newest_events_that_hold_each_phrase() -> None:
    events = bought(*[BAG] * 6, *[MUG] * 6)
    kept = grounded("lunch bags and pink mugs", Section.STABLE, events)
    assert kept is not None
    assert kept.evidence[:4] == ("event-5", "event-11", "event-4", "event-10")
    assert len(kept.evidence) == MAX_EVIDENCE
    assert kept.items == (events[0].item_id, events[-1].item_id)


def test_lines_of_an_answer_become_statements_of_their_sections() -> None:
    answer = (
        " lunch bags; cake tins x5.\n**Now**: none\nAvoids: clocks<|im_end|>\nStable: never read"
    )
    assert list(statements(answer + "<|im_end|>Now: yachts", Section.STABLE)) == [
        (Section.STABLE, "Lunch bags"),
        (Section.STABLE, "Cake tins"),
        (Section.AVOIDS, "Clocks"),
    ]


def test_headings_are_found_wherever_the_model_puts_them() -> None:
    answer = "Lunch bags; Current: cake tins Right now: clocks\n## AVOIDS : mugs"
    assert list(statements(answer, Section.STABLE)) == [
        (Section.STABLE, "Lunch bags"),
        (Section.CURRENT, "Cake tins"),
        (Section.NOW, "Clocks"),
        (Section.AVOIDS, "Mugs"),
    ]


@pytest.mark.parametrize("statement", ["Set/3", "Pack of 20", "red", "vintage sets"])
def test_counts_sizes_and_colours_alone_say_nothing(statement: str) -> None:
    events = bought("Set/3 red vintage tins pack of 20")
    assert grounded(statement, Section.STABLE, events) is None


def test_sizes_and_colours_belong_to_what_they_are_said_of() -> None:
    events = bought("butter, 12 oz", "Red soap, 8 oz", "White lunch bag with red dots")
    supported = ["butter, 12 oz", "soap and butter, 12 oz", "red and white lunch bag"]
    blended = ["butter, 8 oz", "red and butter", "red, 12 oz soap"]
    assert all(grounded(said, Section.STABLE, events) for said in supported)
    assert not any(grounded(said, Section.STABLE, events) for said in blended)


@given(st.text(), st.sampled_from(Section), st.lists(st.sampled_from([BAG, MUG]), max_size=4))
def test_any_answer_is_read_and_what_is_kept_is_supported_by_its_evidence(
    answer: str, first: Section, texts: list[str]
) -> None:
    events = bought(*texts)
    stems_of = {event.event_id: event.stems for event in events}
    for section, statement in statements(answer, first):
        kept = grounded(statement, section, events)
        if kept is not None:
            cited = frozenset().union(*(stems_of[event_id] for event_id in kept.evidence))
            assert content_stems(kept.text, section) <= cited


@pytest.mark.parametrize(
    ("title", "true", "false"),
    [
        ("लाल साड़ी कपड़ा", "लाल साड़ी", "लीला कपड़े"),
        ("लाल साड़ी कपड़ा", "कपड़ा", "किताब"),
        ("हिन्दी किताब", "किताब", "कताब"),
        ("பட்டு புடவை", "புடவை", "பாடவை"),
        ("ლურჯი ჩანთა", "ჩანთა", "წიგნი"),
        ("כובע אדום", "כובע", "תיק"),
        ("czerwony kapelusz wełniany", "kapelusz wełniany", "kapelusz welniany"),
        ("赤い傘と青い皿", "赤い傘", "青い傘"),
        ("红色雨伞", "雨伞", "红伞"),
        ("绿茶 茶", "茶", "酒"),
        ("เสื้อยืดสีแดง", "เสื้อยืด", "เสื้อสีดำ"),
        ("ស្បែកជើងក្រហម", "ស្បែកជើង", "ក្រហមជើង"),
        ("အင်္ကျီ အနီ", "အင်္ကျီ", "အနက်"),
        ("ເສື້ອສີແດງ", "ສີແດງ", "ສີດຳ"),
    ],
)
def test_words_of_every_script_are_told_apart(title: str, true: str, false: str) -> None:
    events = bought(title, MUG)
    assert grounded(true, Section.STABLE, events) is not None
    assert grounded(false, Section.STABLE, events) is None


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Crème brûlée set", "cre\u0300me bru\u0302le\u0301e"),
        ("Cre\u0300me set", "crème"),
        ("क्\u200dषमा", "क्षमा"),
        ("क्षमा", "क्\u200dषमा"),
        ("می\u200cخواهم", "میخواهم"),
        ("ｶﾞﾗｽのコップ", "ガラス"),
        ("Ｌｕｎｃｈ bag", "lunch bag"),
        ("İstanbul çantası", "istanbul"),
        ("ISTANBUL çantası", "i\u0307stanbul"),
        ("istanbul çantası", "İSTANBUL"),
    ],
)
def test_the_same_letters_in_another_encoding_are_the_same_word(title: str, said: str) -> None:
    assert grounded(said, Section.STABLE, bought(title)) is not None


@pytest.mark.parametrize(
    ("marked", "bare", "other"),
    [
        ("كِتَابٌ", "كتاب", "كتب"),
        ("مُدَرِّس", "مدرس", "مدرسة"),
        ("رحمٰن", "رحمن", "رحيم"),
        ("كتــــاب", "كتاب", "كتب"),
        ("סֵפֶר", "ספר", "ספרים"),
        ("שׁוּלְחָן", "שולחן", "שולחנות"),
        ("\ufb2aלחן", "שלחן", "שולחן"),
    ],
)
def test_marks_that_may_be_left_out_are_left_out_on_both_sides(
    marked: str, bare: str, other: str
) -> None:
    assert grounded(bare, Section.STABLE, bought(marked)) is not None
    assert grounded(marked, Section.STABLE, bought(bare)) is not None
    assert grounded(other, Section.STABLE, bought(marked)) is None


@given(st.data(), st.sampled_from(sorted(SCRIPTS)))
def test_a_titles_own_words_pass_and_another_titles_word_does_not(data, script: str) -> None:
    title, other = data.draw(title_in(script)), data.draw(title_in(script))
    gap = "" if script in UNSPACED else " "
    begin = data.draw(st.integers(0, len(title) - 1))
    own = gap.join(title[begin : data.draw(st.integers(begin + 1, len(title)))])
    events = bought(gap.join(title))
    assert grounded(own, Section.STABLE, events) is not None
    foreign = data.draw(st.sampled_from(other))
    assume(told_by(foreign, script) not in told_by(gap.join(title), script))
    assert grounded(foreign, Section.STABLE, events) is None
    assert grounded(f"{own}, {foreign}", Section.STABLE, events) is None


@pytest.mark.parametrize(
    ("title", "word"),
    [
        ("책", "책"),
        ("빨간 책", "책"),
        ("소금 빵", "빵"),
        ("컵", "\u110f\u1165\u11b8"),
        ("穀物酢", "酢"),
        ("ཇ", "ཇ"),
        ("ꋍ", "ꋍ"),
    ],
)
def test_one_character_that_is_a_word_tells_as_much_as_one_of_letters(
    title: str, word: str
) -> None:
    assert grounded(word, Section.STABLE, bought(title)) is not None
    assert grounded(word, Section.STABLE, bought(MUG)) is None


@pytest.mark.parametrize("letter", ["x", "б", "の", "ก", "क"])
def test_a_single_letter_says_nothing(letter: str) -> None:
    assert grounded(letter, Section.STABLE, bought(letter)) is None
