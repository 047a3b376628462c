from __future__ import annotations

import unicodedata

import pytest

from models.schemas import Item
from streams.item_texts import ItemTexts
from tests.streams.logged import record_of

TITLES = (
    "Steak knife",
    "Tea for two",
    "Café mug",
    "Red wine glass",
    "लाल साड़ी कपड़ा",
    "चाय का कप",
    "紅茶のカップ",
)


def texts_of(*titles: str) -> ItemTexts:
    texts = ItemTexts(partitions=1)
    for n, title in enumerate(titles):
        texts.on_record(record_of("items", 0, n, Item(item_id=title, title=title)))
    return texts


@pytest.mark.parametrize(
    ("forbidden", "hidden"),
    [
        ("tea", {"Tea for two"}),
        ("TEA", {"Tea for two"}),
        (unicodedata.normalize("NFD", "café"), {"Café mug"}),
        ("wines", {"Red wine glass"}),
        ("red wine", {"Red wine glass"}),
        ("wine red", set()),
        ("कप", {"चाय का कप"}),
        ("紅茶", {"紅茶のカップ"}),
        ("", set()),
        ("…", set()),
    ],
)
def test_a_forbidden_word_hides_the_items_whose_text_says_it(forbidden: str, hidden: set[str]):
    assert texts_of(*TITLES).matching((forbidden,)) == hidden


def test_each_of_several_words_hides_and_none_hides_nothing():
    texts = texts_of(*TITLES)
    assert texts.matching(("tea", "knives", "mug")) >= {"Tea for two", "Café mug"}
    assert texts.matching(()) == frozenset()


def test_an_item_with_another_title_is_hidden_by_that_one():
    texts = texts_of("Tea for two")
    renamed = Item(item_id="Tea for two", title="Coffee for two")
    texts.on_record(record_of("items", 0, 1, renamed))

    assert texts.matching(("tea",)) == frozenset()
    assert texts.matching(("coffee",)) == {"Tea for two"}
