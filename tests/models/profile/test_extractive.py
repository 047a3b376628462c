from __future__ import annotations

import pytest

from models.profile.evidence import Evidence, section_events
from models.profile.extractive import extractive_sentences, themes
from models.schemas import InteractionType, Section, WindowEntry
from tests.models.profile_requests import event, request_of


def read(entries: list[WindowEntry]) -> tuple[Evidence, ...]:
    return section_events(request_of(entries))[Section.STABLE]


def told(section: Section, entries: list[WindowEntry]) -> list[str]:
    return [sentence.text for sentence in extractive_sentences(section, read(entries))]


def old(*texts: str, **fields: object) -> list[WindowEntry]:
    return [event(n, text, 300 - n, **fields) for n, text in enumerate(texts)]


def test_themes_are_the_words_that_several_items_share() -> None:
    events = read(old("Lunch bag red", "Set of 3 cake tins", "Lunch bag suki", "6 cake tins", "Ox"))
    assert [theme.text for theme in themes(events)] == ["cake tins", "lunch bag"]


def test_colours_sizes_and_counts_are_no_themes() -> None:
    assert themes(read(old("12 small red", "12 small pink", "Pack of 12 vintage"))) == []


@pytest.mark.parametrize(
    ("texts", "theme"),
    [
        (("빨간 책", "파란 책", "노란 책"), "책"),
        (("红 茶", "绿 茶", "黑 茶"), "茶"),
        (("red tea", "blue tea", "gray tea"), "tea"),
    ],
)
def test_a_word_of_one_character_is_a_theme_like_any_other(
    texts: tuple[str, ...], theme: str
) -> None:
    assert [one.text for one in themes(read(old(*texts)))] == [theme]


def test_what_items_are_without_is_no_theme() -> None:
    assert themes(read(old("tea without sugar", "juice, no sugar", "milk lacking sugar"))) == []
    assert [one.text for one in themes(read(old("sugar free gum", "sugar free tea")))] == [
        "sugar free"
    ]


def test_an_item_bought_again_is_no_theme_but_a_habit() -> None:
    entries = old(*["Lunch bag red"] * 3, "Lunch bag suki")
    assert told(Section.STABLE, entries) == [
        "Often buys lunch bag, such as lunch bag suki",
        "Came back for lunch bag red (3 times)",
    ]


def test_without_themes_the_most_frequent_items_are_named() -> None:
    entries = old("Alarm clock", "Teapot", "Teapot", "Doormat", "Umbrella")
    assert told(Section.CURRENT, entries) == ["Lately buys teapot, umbrella and doormat"]


@pytest.mark.parametrize(
    ("kind", "once"),
    [
        (InteractionType.PURCHASE, "Bought teapot and alarm clock"),
        (InteractionType.RATING, "Rated teapot and alarm clock"),
        (InteractionType.CART, "Considered teapot and alarm clock"),
        (InteractionType.VIEW, "Looked at teapot and alarm clock"),
    ],
)
def test_often_is_not_said_of_one_or_two_events(kind: InteractionType, once: str) -> None:
    assert told(Section.STABLE, old("Alarm clock", "Teapot", type=kind)) == [once]


def test_right_now_names_the_newest_items() -> None:
    entries = old("Alarm clock", "Teapot", "Doormat", "Umbrella")
    assert told(Section.NOW, entries) == ["Just bought umbrella, doormat and teapot"]


def test_the_verb_follows_what_was_done_most() -> None:
    entries = old("Alarm clock", "Teapot", type=InteractionType.VIEW)
    assert told(Section.NOW, entries) == ["Just looked at teapot and alarm clock"]


def test_dislikes_are_told_by_kind() -> None:
    kinds = (InteractionType.CANCEL, InteractionType.HIDE, InteractionType.RATING)
    entries = [
        event(n, text, 9 - n, type=kind)
        for n, (text, kind) in enumerate(zip(("Teapot", "Doormat", "Umbrella"), kinds, strict=True))
    ]
    assert told(Section.AVOIDS, entries) == [
        "Sent back teapot",
        "Hid doormat",
        "Gave few stars to umbrella",
    ]


def test_titles_keep_proper_case_and_lose_what_follows_the_comma() -> None:
    entries = old("OPI Nail Lacquer Ruby, 0.5 Ounce", "RUBY")
    assert told(Section.NOW, entries) == ["Just bought RUBY and OPI Nail Lacquer Ruby"]


def test_every_sentence_cites_the_events_that_it_names() -> None:
    entries = old("Lunch bag red", "Lunch bag suki", "Teapot")
    (sentence,) = extractive_sentences(Section.STABLE, read(entries))
    assert sentence.evidence == ("event-1", "event-0")
    assert sentence.items == (entries[1].item_id, entries[0].item_id)
